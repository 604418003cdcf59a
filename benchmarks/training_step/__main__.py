"""Measure everything that the project says about speed and memory, in one run.

    python -m benchmarks.training_step

Times are compared as ratios of interleaved repetitions within this run. Writes `results.json` and, where a README.md
with markers stands beside it, its tables. `--quick` only checks that everything runs: tiny sizes, meaningless ratios.
"""

import shlex
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from benchmarks.report import judged, make_parser, publish
from benchmarks.training_step.agreement import agreement
from benchmarks.training_step.results_table import tables, usual
from benchmarks.training_step.setting import Setting, quiet
from benchmarks.training_step.step_memory import step_memory
from benchmarks.training_step.table_projection import projection
from benchmarks.training_step.training_step import growth, training_steps

HERE = Path(__file__).resolve().parent
QUICK = Setting(width=64, heads=2, layers=2, vocabulary=1000, batch=4, prompt=5, text=8)
PROMPTS, BATCHES = (5, 10, 20, 50, 100), (1, 4, 16, 64)


def measure(setting: Setting, quick: bool) -> dict[str, Any]:
    """All parts; a multiple of 10 repetitions, as every tenth step also computes the gradient norm's statistic."""
    repetitions, warmups, several = (2, 1, 2) if quick else (20, 2, 5)
    prompts, batches = (PROMPTS[:2], BATCHES[:2]) if quick else (PROMPTS, BATCHES)
    return {
        "agreement": _reported("agreement", lambda: agreement(setting)),
        "memory": _reported("memory", lambda: step_memory(setting)),
        "projection": _reported("projection", lambda: projection(setting, repetitions)),
        "training_step": _reported("training step", lambda: training_steps(setting, repetitions, warmups)),
        "growth": _reported("growth", lambda: growth(setting, prompts, batches, several)),
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
    asked = [
        ("step time, ours / stock, one label per row", steps["one"]["step"]["ratio"], "<=", 0.35),
        ("step time, ours / stock, labels on every text token", steps["all"]["step"]["ratio"], "<=", 0.75),
        ("loss and gradient, largest relative error to the plain pass", max(errors), "<=", 1e-5),
        ("peak memory, ours / stock, one label per row", memory["one"]["ratio"], "<=", 1.0),
        ("peak memory, ours / stock, labels on every text token", memory["all"]["ratio"], "<=", 1.0),
        ("projection, times faster than normalising the table", results["projection"]["speedup"], ">=", 2.5),
    ]
    return judged(asked)


def main() -> None:
    """Measure, write, show."""
    arguments = make_parser(__doc__, HERE).parse_args()
    quiet()
    setting = replace(QUICK if arguments.quick else Setting(), device=arguments.device)
    if arguments.full:
        setting = replace(setting, layers=12)
    machine, begin = describe_machine(arguments.device), time.perf_counter()
    parts = measure(setting, arguments.quick)
    results = {
        "command": shlex.join(["python", "-m", "benchmarks.training_step", *sys.argv[1:]]),
        "seconds": round(time.perf_counter() - begin, 1),
        "machine": machine,
        "setting": asdict(setting),
        "goals": goals(parts),
        **parts,
    }
    publish(results, arguments.output, tables, usual)


if __name__ == "__main__":
    main()
