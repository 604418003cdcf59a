"""Check and measure all ways to run a training step on one device.

    python -m benchmarks.device_steps --device cuda --output results

Runs from a plain checkout. Writes `checks.json` and `steps.json` into the output folder, anew after every case, and
prints a line for each.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.device_steps.checks import agreement, broken_loss, forced, projection, stops
from benchmarks.device_steps.costs import Step, measured, training_step
from benchmarks.device_steps.shapes import Case, adapted, base_model, random_batch, trained
from peft_interp.tuner import one_pass

ON_GPU = [
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
    Case("llama-8b", "bf16", 1, 20, 64, "one"),
    Case("gpt2", "bf16", 16, 20, 32, "one"),
    Case("llama-1b", "bf16", 16, 20, 256, "one"),
    Case("llama-1b", "bf16", 16, 20, 256, "all"),
]
ON_CPU = [
    Case("gpt2-4", "fp32", 16, 20, 32, "one"),
    Case("gpt2-4", "fp32", 16, 20, 32, "all"),
    Case("gpt2-4", "fp32", 1, 20, 32, "one"),
]
QUICK = [Case("gpt2-tiny", "fp32", 4, 5, 8, "one"), Case("llama-tiny", "bf16", 4, 5, 8, "all")]


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path("outputs/device_steps"))
    parser.add_argument("--seconds", type=float, default=200.0, help="no further case is begun after so long")
    parser.add_argument("--repetitions", type=int, default=12)
    parser.add_argument("--quick", action="store_true", help="does it run? tiny sizes, meaningless times")
    return parser.parse_args()


def tell(*words: Any) -> None:
    """A line that is there even if the process is stopped."""
    print(*words, flush=True)


def main() -> None:
    """Checks first, then the cases, the most important ones first."""
    arguments, begin = parse_arguments(), time.perf_counter()
    warnings.filterwarnings("ignore", category=FutureWarning)
    transformers.logging.set_verbosity_error()
    arguments.output.mkdir(parents=True, exist_ok=True)
    machine = describe(arguments.device)
    tell(machine)
    checks = {"machine": machine, **run_checks(arguments.device, arguments.quick)}
    (arguments.output / "checks.json").write_text(json.dumps(checks, indent=1))
    cases = QUICK if arguments.quick else ON_GPU if arguments.device == "cuda" else ON_CPU
    rows: list[dict[str, Any]] = []
    base: tuple[tuple[str, str], Any] | None = None
    for case in cases:
        if time.perf_counter() - begin > arguments.seconds:
            tell("no time left for", case.name)
            continue
        if base is None or base[0] != (case.model, case.dtype):
            base = None
            gc.collect()
        try:
            base = base or ((case.model, case.dtype), base_model(case.model, case.dtype, arguments.device))
            results = measured(candidates(case, base[1], arguments.device), arguments.device, arguments.repetitions)
        except Exception as error:
            tell(case.name, "FAILED", repr(error)[:2000])
            continue
        rows.append({"case": case.name, **results})
        (arguments.output / "steps.json").write_text(json.dumps({"machine": machine, "steps": rows}, indent=1))
        show(case, results)
    tell(f"{time.perf_counter() - begin:.0f} s")


def describe(device: str) -> dict[str, Any]:
    """Device and versions."""
    known = {"python": sys.version.split()[0], "device": device}
    for name in ("torch", "transformers", "peft", "accelerate"):
        try:
            known[name] = version(name)
        except PackageNotFoundError:
            known[name] = "none"
    if device == "cuda":
        known["device"] = torch.cuda.get_device_name()
    return known


def run_checks(device: str, quick: bool) -> dict[str, Any]:
    """Right results, no stops, a told NaN, the projection's time."""
    found: dict[str, Any] = {"agreement": [], "stops": []}
    for row in agreement(device):
        found["agreement"].append(row)
        tell("agree", *(f"{row[k]:.1e}" if isinstance(row[k], float) else row[k] for k in row if row[k] is not None))
    if any(row["error"] and row["way"] == "one pass" for row in found["agreement"]):
        one_pass._in_one_kernel = one_pass._by_rows
        tell("the kernel for unequal rows fails here: what follows is measured without it")
    if device == "cuda":
        for row in stops(device):
            found["stops"].append(row)
            tell("stops", row["model"], row["way"], row["error"] or "none")
    try:
        found["broken_loss"] = broken_loss(device)
    except Exception as error:
        found["broken_loss"] = repr(error)
    tell("broken loss", found["broken_loss"])
    sizes = [(1000, 64, "bf16")] if quick else [(50257, 768, "fp32"), (128256, 4096, "bf16")]
    for vocabulary, dim, dtype in sizes:
        name = f"projection {vocabulary} x {dim} {dtype}"
        try:
            found[name] = projection(device, vocabulary, dim, dtype, timer(device))
        except Exception as error:
            found[name] = repr(error)
        tell(name, found[name])
    return found


def timer(device: str) -> Callable[[Callable[[], Any]], float]:
    """Median milliseconds of a call, on a GPU between events of its own."""

    def milliseconds(call: Callable[[], Any]) -> float:
        times = []
        for _ in range(13):
            if device == "cuda":
                begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                begin.record()
                call()
                end.record()
                torch.cuda.synchronize()
                times.append(begin.elapsed_time(end))
            else:
                start = time.perf_counter()
                call()
                times.append((time.perf_counter() - start) * 1000)
        return statistics.median(times[3:])

    return milliseconds


def candidates(case: Case, base: Any, device: str) -> dict[str, Step]:
    """Stock prompt tuning, and each way of ours."""
    batch = random_batch(case, base.config.vocab_size, device)
    stock = adapted(base, case.prompt, ours=False)
    steps = {"stock": training_step(stock, trained(stock), batch)}
    for way in ("rows", "one pass"):
        model = adapted(base, case.prompt, ours=True, share_prefix=True)
        steps[way] = _forced_step(way, training_step(model, trained(model), batch))
    return steps


def _forced_step(way: str, step: Step) -> Step:
    def run() -> None:
        with forced(way):
            step()

    return run


def show(case: Case, results: dict[str, dict[str, Any]]) -> None:
    """One line."""
    stock = results["stock"]
    parts = []
    for name, one in results.items():
        ratio = "" if name == "stock" else f" x{one['ms'] / stock['ms']:.2f}"
        gpu = ""
        if "kernels" in one:
            gpu = f" dev {one['device_ms']:.1f} k {one['kernels']}+{one['copies']} {one['peak_mib']:.0f}M"
        parts.append(f"{name} {one['ms']:.1f}{ratio} host {one['host_ms']:.1f}{gpu}")
    tell(case.name, "|", " | ".join(parts))


if __name__ == "__main__":
    main()
