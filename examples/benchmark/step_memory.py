"""Peak memory of training steps, beyond what model and batch occupy before them.

On a CPU each measurement is a process of its own, read from the kernel's high-water mark. `ru_maxrss` would not do on
Linux: a child process starts with its parent's.
"""

import multiprocessing
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from setting import ADAPTERS, LABELS, Setting, adapted, quiet, random_batch, trained_parameter

STEPS = 3  # the first one computes the table's norms, the others project anew


def step_memory(setting: Setting) -> list[dict[str, Any]]:
    """Peak bytes of both adapters for both kinds of labels, and their ratio."""
    cases = [(adapter, labels) for labels in LABELS for adapter in ADAPTERS]
    measure = _on_gpu if setting.device.startswith("cuda") else _in_own_processes
    peaks = dict(zip(cases, measure(setting, cases), strict=True))
    return [
        {
            "labels": labels,
            "ours_bytes": peaks["ours", labels],
            "other_bytes": peaks["stock", labels],
            "ratio": peaks["ours", labels] / peaks["stock", labels],
        }
        for labels in LABELS
    ]


def prepared_steps(setting: Setting, adapter: str, labels: str) -> Callable[[], None]:
    """Model and batch in memory; what is returned runs the steps."""
    model, batch = adapted(setting, adapter), random_batch(setting, labels)
    optimizer = torch.optim.AdamW([trained_parameter(model)], lr=0.01)

    def run() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()

    return run


def _on_gpu(setting: Setting, cases: list[tuple[str, str]]) -> list[int]:
    peaks = []
    for adapter, labels in cases:
        run = prepared_steps(setting, adapter, labels)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        peaks.append(torch.cuda.max_memory_allocated() - before)
    return peaks


def _in_own_processes(setting: Setting, cases: list[tuple[str, str]]) -> list[int]:
    """Two at a time: memory, unlike time, does not mind."""
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload(["peft_interp"])  # import the libraries once, not in every process
    with context.Pool(processes=2, maxtasksperchild=1) as pool:
        return pool.starmap(measure_here, [(setting, *case) for case in cases], chunksize=1)


def measure_here(setting: Setting, adapter: str, labels: str) -> int:
    """Growth of this process's memory during the steps, in bytes."""
    quiet()
    run = prepared_steps(setting, adapter, labels)
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
