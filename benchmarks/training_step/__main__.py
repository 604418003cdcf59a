"""Measure everything that the project says about speed and memory, in one run.

    python -m benchmarks.training_step --device cpu
    python -m benchmarks.training_step --device cuda --parts checks,ways

Times are compared as ratios of interleaved repetitions within this run. Writes `results_<device>.json` and, of a whole
run on a CPU, the tables of the README.md beside it, where that has markers. `--quick` only checks that everything
runs: tiny sizes, meaningless ratios.
"""

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from benchmarks.report import judged, make_parser, publish, write_results
from benchmarks.training_step.agreement import agreement
from benchmarks.training_step.checks import checks
from benchmarks.training_step.operations import operations
from benchmarks.training_step.results_table import tables, usual
from benchmarks.training_step.setting import Setting, quiet
from benchmarks.training_step.step_memory import step_memory
from benchmarks.training_step.table_projection import projection
from benchmarks.training_step.training_step import growth, training_steps
from benchmarks.training_step.ways import ways_of_all
from peft_interp.tuner.training_step import ONE_PASS, ROWS

HERE = Path(__file__).resolve().parent
QUICK = Setting(width=64, heads=2, layers=2, vocabulary=1000, batch=4, prompt=5, text=8)
PROMPTS, BATCHES = (5, 10, 20, 50, 100), (1, 4, 16, 64)


def measure(setting: Setting, quick: bool, seconds: float) -> dict[str, Callable[[], Any]]:
    """All parts by name; of the ways, no further case is begun after so many seconds."""
    repetitions, warmups, several = (2, 1, 2) if quick else (20, 2, 5)
    device = setting.device
    prompts, batches = (PROMPTS[:2], BATCHES[:2]) if quick else (PROMPTS, BATCHES)
    return {
        "checks": lambda: checks(device),
        "operations": operations,
        "ways": lambda: ways_of_all(device, quick, seconds, min(repetitions, 12)),
        "agreement": lambda: agreement(setting),
        "memory": lambda: step_memory(setting),
        "projection": lambda: projection(setting, repetitions),
        "training_step": lambda: training_steps(setting, repetitions, warmups),
        "growth": lambda: growth(setting, prompts, batches, several),
    }


def _reported(name: str, part: Any) -> Any:
    begin = time.perf_counter()
    result = part()
    print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
    return result


def goals(results: dict[str, Any]) -> list[dict[str, Any]]:
    """What the project asks of itself, and whether this run shows it."""
    steps, memory = ({case["labels"]: case for case in results[part]} for part in ("training_step", "memory"))
    errors = [error for case in results["agreement"] for error in case["plain_pass"].values()]
    (single,) = (case for case in results["growth"] if case["varied"] == "batch" and case["batch"] == 1)
    counted = {way: max(case[way]["ratio"] for case in results["operations"]) for way in (ROWS, ONE_PASS)}
    waits = max(case[way]["waits"] for case in results["operations"] for way in (ROWS, ONE_PASS))
    asked = [
        ("step time, ours / stock, one label per row", steps["one"]["step"]["ratio"], "<=", 0.30),
        ("step time, ours / stock, labels on every text token", steps["all"]["step"]["ratio"], "<=", 0.70),
        ("step time, ours / stock, a batch of one row", single["step"]["ratio"], "<=", 1.0),
        ("operations given to the device, rows / stock", counted[ROWS], "<=", 1.1),
        ("operations given to the device, one pass / stock", counted[ONE_PASS], "<=", 1.4),
        ("operations in a step that wait for the device", waits, "<=", 0),
        ("loss and gradient, largest relative error to the plain pass", max(errors), "<=", 1e-5),
        ("peak memory, ours / stock, one label per row", memory["one"]["ratio"], "<=", 1.0),
        ("peak memory, ours / stock, labels on every text token", memory["all"]["ratio"], "<=", 1.0),
        ("projection, times faster than normalising the table", results["projection"]["speedup"], ">=", 2.5),
    ]
    return judged(asked)


def main() -> None:
    """Measure, write, show."""
    parser = make_parser(__doc__, HERE)
    parser.add_argument("--parts", help="some of them, as checks,operations,ways; the others are not measured")
    parser.add_argument("--seconds", type=float, default=400.0, help="for the ways; no further case is begun after it")
    arguments = parser.parse_args()
    quiet()
    default = arguments.output == HERE / "results.json"
    output = HERE / f"results_{arguments.device}.json" if default else arguments.output
    setting = replace(QUICK if arguments.quick else Setting(), device=arguments.device)
    if arguments.full:
        setting = replace(setting, layers=12)
    machine, begin = describe_machine(arguments.device), time.perf_counter()
    every = measure(setting, arguments.quick, arguments.seconds)
    chosen = arguments.parts.split(",") if arguments.parts else list(every)
    parts = {name: _reported(name, every[name]) for name in chosen}
    results = {
        "command": shlex.join(["python", "-m", "benchmarks.training_step", *sys.argv[1:]]),
        "seconds": round(time.perf_counter() - begin, 1),
        "machine": machine,
        "setting": asdict(setting),
        "goals": goals(parts) if len(parts) == len(every) else [],
        **parts,
    }
    if arguments.device == "cpu" and len(parts) == len(every):
        publish(results, output, tables, usual)
    else:
        write_results(results, output)


if __name__ == "__main__":
    main()
