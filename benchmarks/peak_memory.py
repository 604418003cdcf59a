"""How far memory rises while something runs.

On a CPU each measurement is a process of its own, read from the kernel's high-water mark. `ru_maxrss` would not do on
Linux: a child process starts with its parent's.
"""

import multiprocessing
import resource
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch


def each_alone(measure: Callable[..., int], cases: Sequence[tuple[Any, ...]], device: str, processes: int) -> list[int]:
    """`measure` of every case; on a CPU each in a fresh process, several at a time: memory, unlike time, does not mind.

    Args:
        measure: a module's function that returns bytes.
        cases: its arguments.
        device: "cpu" or "cuda".
        processes: how many at a time.
    """
    if device.startswith("cuda"):
        return [measure(*case) for case in cases]
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":  # import the libraries once, not in every process
        context.set_forkserver_preload(["peft_interp"])
    with context.Pool(processes=processes, maxtasksperchild=1) as pool:
        return pool.starmap(measure, cases, chunksize=1)


def rise(device: str, run: Callable[[], object]) -> int:
    """Bytes between what is in use now and the most while `run` works: of this process, or allocated on the GPU."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what is in use now
    before = _high_water()
    run()
    return _high_water() - before


def _high_water() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
