"""Time on the wall, on the host and on the device, kernels and memory of training steps, interleaved."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

Step = Callable[[], None]


def training_step(model: Any, parameter: Tensor, batch: dict[str, Tensor]) -> Step:
    """zero_grad, forward, backward, AdamW."""
    optimizer = torch.optim.AdamW([parameter], lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()

    return step


def measured(steps: Mapping[str, Step], device: str, repetitions: int, warmups: int = 3) -> dict[str, dict[str, Any]]:
    """Medians of interleaved repetitions, in milliseconds, and what one further step launches and allocates.

    Args:
        steps: the candidates; each repetition runs all of them, in alternating order.
        device: "cpu" or "cuda".
        repetitions: how many count.
        warmups: how many come before.

    Returns:
        For each candidate `ms` (with all work done), `host_ms` (until Python has the step launched), and on a GPU
        `device_ms` (sum over kernels), `kernels` and `peak_mib` (beyond what was allocated before).
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for repetition in range(-warmups, repetitions):
        names = list(steps) if repetition % 2 == 0 else list(steps)[::-1]
        for name in names:
            _finish(device)
            begin = time.perf_counter()
            steps[name]()
            launched = time.perf_counter()
            _finish(device)
            if repetition >= 0:
                times[name].append((time.perf_counter() - begin, launched - begin))
    results: dict[str, dict[str, Any]] = {}
    for name, pairs in times.items():
        whole, host = (statistics.median(part) * 1000 for part in zip(*pairs, strict=True))
        results[name] = {"ms": whole, "host_ms": host, **(_on_gpu(steps[name]) if device == "cuda" else {})}
    return results


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _on_gpu(step: Step) -> dict[str, Any]:
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20
    with profile(activities=[ProfilerActivity.CUDA]) as record:
        step()
        torch.cuda.synchronize()
    events = [event for event in record.events() if str(event.device_type).endswith("CUDA")]
    kernels = sum(1 for event in events if not event.name.startswith(("Memcpy", "Memset")))
    busy = sum(event.time_range.elapsed_us() for event in events) / 1000
    return {"peak_mib": peak, "kernels": kernels, "copies": len(events) - kernels, "device_ms": busy}
