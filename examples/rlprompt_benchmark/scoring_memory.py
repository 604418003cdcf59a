"""Peak memory of scoring, beyond model and data, while prompts and examples grow.

On a CPU each measurement is a process of its own, read from the kernel's high-water mark.
"""

import multiprocessing
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from scoring_setting import Setting, language_model, random_prompts
from search_step import scorers

CASES = {("ours", "end"): None, ("ours", "start"): 2, ("other", "end"): 1}  # how many of the sizes; None: all


def scoring_memory(setting: Setting, sizes: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Peak bytes for each (prompts, examples): ours at the end; the slow ones only at the first sizes."""
    asked = [(size, case) for case, several in CASES.items() for size in sizes[:several]]
    arguments = [(replace(setting, prompts=p, examples=n), name, position) for (p, n), (name, position) in asked]
    if setting.device.startswith("cuda"):
        peaks = [peak_here(*argument) for argument in arguments]
    else:
        context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
        if sys.platform == "linux":
            context.set_forkserver_preload(
                ["peft_interp.scoring.task_scorer"]
            )  # import the libraries once, not in every process
        with context.Pool(processes=1, maxtasksperchild=1) as pool:
            peaks = pool.starmap(peak_here, arguments, chunksize=1)
    return [
        {"who": name, "position": position, "prompts": p, "examples": n, "bytes": peak}
        for ((p, n), (name, position)), peak in zip(asked, peaks, strict=True)
    ]


def peak_here(setting: Setting, name: str, position: str) -> int:
    """Growth of this process's memory (on a GPU: of the allocated memory) while prompts are scored twice."""
    transformers.logging.set_verbosity_error()
    model = language_model(setting)
    if setting.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what is in use now
        before = _high_water()
    score = scorers(setting, model, position)[name]
    for seed in range(2):
        score(random_prompts(setting, seed))
    after = torch.cuda.max_memory_allocated() if setting.device.startswith("cuda") else _high_water()
    return after - before


def _high_water() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
