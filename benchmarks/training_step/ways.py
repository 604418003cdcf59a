"""All ways to run a training step, models of all sizes: time on the wall and on the host, kernels, memory."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.timing import now
from benchmarks.training_step.candidates import with_unequal_rows
from benchmarks.training_step.models import Case, adapted, base_model, case_batch, trained
from peft_interp.tuner import ways
from peft_interp.tuner.training_step import ONE_PASS, ROWS

Step = Callable[[], None]
# The most important ones first: a run may have little time.
CASES = {
    "cuda": [
        Case("gpt2", "fp32", 16, 20, 32, "one"),
        Case("gpt2", "fp32", 16, 20, 32, "all"),
        Case("gpt2", "fp32", 1, 20, 32, "one"),
        Case("gpt2", "fp32", 64, 20, 32, "one"),
        Case("llama-1b", "bf16", 64, 20, 64, "one"),
        Case("llama-1b", "bf16", 16, 20, 32, "one"),
        Case("llama-1b", "bf16", 1, 20, 32, "one"),
        Case("llama-8b", "bf16", 16, 20, 64, "one"),
        Case("llama-8b", "bf16", 16, 100, 64, "one"),
        Case("llama-8b", "bf16", 16, 20, 256, "all"),
        Case("gpt2", "bf16", 16, 20, 32, "one"),
        Case("llama-1b", "bf16", 16, 20, 256, "one"),
        Case("llama-1b", "bf16", 16, 20, 256, "all"),
    ],
    "cpu": [
        Case("gpt2-4", "fp32", 16, 20, 32, "one"),
        Case("gpt2-4", "fp32", 16, 20, 32, "all"),
        Case("gpt2-4", "fp32", 1, 20, 32, "one"),
        Case("llama-4", "fp32", 8, 20, 32, "one"),
    ],
}
QUICK = [Case("gpt2-tiny", "fp32", 4, 5, 8, "one"), Case("llama-tiny", "fp32", 4, 5, 8, "all")]


@contextmanager
def forced(way: str) -> Iterator[None]:
    """While open, the rule says that this way is the faster one."""
    before = ways.one_pass_is_faster
    ways.one_pass_is_faster = lambda *args: way == ONE_PASS
    try:
        yield
    finally:
        ways.one_pass_is_faster = before


def ways_of_all(device: str, quick: bool, seconds: float, repetitions: int) -> list[dict[str, Any]]:
    """What stock PEFT and each way take in each case, until the time is up; `chosen` is what the rule says."""
    begin, results = time.perf_counter(), []
    base: tuple[tuple[str, str], Any] | None = None
    for case in QUICK if quick else CASES[device]:
        if time.perf_counter() - begin > seconds:
            break
        if base is None or base[0] != (case.model, case.dtype):
            base = None
            gc.collect()
        try:
            base = base or ((case.model, case.dtype), base_model(case.model, case.dtype, device))
            found = _measured(_candidates(case, base[1], compiled=not quick), device, repetitions)
            one_pass = case.batch > 1 and ways.one_pass_is_faster(base[1], case.prompt, case.shape)
            chosen = ONE_PASS if one_pass else ROWS
            results.append({"case": case.name, "chosen": chosen, "steps": found})
        except Exception as error:  # what one card cannot do must not lose the rest
            results.append({"case": case.name, "error": repr(error)[:500]})
        print(results[-1], file=sys.stderr, flush=True)
    return results


def _candidates(case: Case, base: Any, compiled: bool) -> dict[str, Step]:
    batch = case_batch(case, base.config.vocab_size, base.device)
    stock = adapted(base, case.prompt, ours=False)
    steps = {"stock": _training_step(stock, stock, batch)}
    for way in (ROWS, ONE_PASS):
        model = adapted(base, case.prompt, ours=True)
        steps[way] = _inside(partial(forced, way), _training_step(model, model, batch))
    if base.device.type == "cuda":
        model = adapted(base, case.prompt, ours=True)
        inner = _inside(partial(forced, ONE_PASS), _training_step(model, model, batch))
        steps[f"{ONE_PASS}, unequal rows"] = _inside(with_unequal_rows, inner)
    for name, model in (("stock", stock), ("ours", adapted(base, case.prompt, ours=True))) if compiled else ():
        steps[f"{name}, compiled"] = _training_step(model, torch.compile(model), batch)
    return steps


def _training_step(model: Any, run: Any, batch: dict[str, Tensor]) -> Step:
    """zero_grad, forward, backward, AdamW."""
    optimizer = torch.optim.AdamW([trained(model)], lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        run(**batch).loss.backward()
        optimizer.step()

    return step


def _inside(context: Any, step: Step) -> Step:
    def run() -> None:
        with context():
            step()

    return run


def _measured(steps: Mapping[str, Step], device: str, repetitions: int) -> dict[str, dict[str, Any]]:
    """Medians of interleaved repetitions, in milliseconds, and the median of the ratios to stock beside it.

    Returns:
        For each candidate `ms` (with all work done), `host_ms` (until Python has the step launched), `ratio` and
        `user_ratio` (of the processor's time, which other programs on the machine disturb less), and on a GPU
        `device_ms` (sum over kernels), `kernels`, `copies` and `peak_mib` (beyond what was allocated before). `error`
        for one that does not run.
    """
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in steps}
    errors: dict[str, str] = {}
    for repetition in range(-3, repetitions):
        for name in list(steps) if repetition % 2 == 0 else list(steps)[::-1]:
            if name in errors:
                continue
            try:
                taken = _timed(steps[name], device)
            except Exception as error:
                errors[name] = repr(error)[:300]
                continue
            if repetition >= 0:
                times[name].append(taken)
    results: dict[str, dict[str, Any]] = {name: {"error": error} for name, error in errors.items()}
    for name in steps:
        if name not in errors:
            results[name] = _summary(times[name], times["stock"]) | (_on_gpu(steps[name]) if device == "cuda" else {})
    return results


def _timed(step: Step, device: str) -> tuple[float, float, float]:
    begin, user = now(device), time.process_time()
    step()
    launched = time.perf_counter()
    end = now(device)
    return end - begin, launched - begin, time.process_time() - user


def _summary(own: list[tuple[float, float, float]], stock: list[tuple[float, float, float]]) -> dict[str, Any]:
    whole, host, _ = (statistics.median(part) * 1000 for part in zip(*own, strict=True))
    return {
        "ms": whole,
        "host_ms": host,
        "ratio": statistics.median(a[0] / b[0] for a, b in zip(own, stock, strict=True)),
        "user_ratio": statistics.median(a[2] / b[2] for a, b in zip(own, stock, strict=True)),
    }


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
