"""Measure what scoring prompts costs, against the loop that RLPrompt's published procedure describes.

    python -m benchmarks.scoring

Times are compared as ratios of interleaved repetitions within this run. Writes `results.json` and, where a README.md
with markers stands beside it, its tables. `--quick` only checks that everything runs: tiny sizes, meaningless ratios.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import transformers

from benchmarks.machine import describe_machine
from benchmarks.report import judged, make_parser, publish, write_results
from benchmarks.scoring.candidate_rate import candidates
from benchmarks.scoring.memory import scoring_memory
from benchmarks.scoring.results_table import tables, usual
from benchmarks.scoring.search_step import agreement, growth, steps
from benchmarks.scoring.setting import Setting

HERE = Path(__file__).resolve().parent
QUICK = Setting(width=64, heads=2, layers=2, vocabulary=1000, prompts=4, prompt=3, examples=4, text=8, policy_hidden=32)
GROWTH: dict[str, Sequence[int]] = {"prompts": (4, 32), "examples": (8, 64), "text": (15, 60)}  # around `Setting`
MEMORY = ((16, 32), (64, 32), (16, 128), (64, 128))


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = make_parser(__doc__, HERE)
    parser.add_argument("--repetitions", type=int, default=7, help="of the step; growth takes a third, at least two")
    return parser.parse_args()


def measurements(setting: Setting, quick: bool, repetitions: int) -> dict[str, Callable[[], Any]]:
    """Every part by name, to be run in turn."""
    sizes = {name: values[:1] for name, values in GROWTH.items()} if quick else GROWTH
    memory = ((4, 4), (8, 4)) if quick else MEMORY
    repetitions, several = (2, 2) if quick else (repetitions, max(2, repetitions // 3))
    return {
        "agreement": lambda: agreement(setting),
        "steps": lambda: steps(setting, repetitions, warmups=1),
        "candidates": lambda: candidates(setting if quick else replace(setting, prompts=8), several),
        "growth": lambda: growth(setting, sizes, several),
        "memory": lambda: scoring_memory(setting, memory),
    }


def goals(results: dict[str, Any]) -> list[dict[str, Any]]:
    """What the project asks of itself, and whether this run shows it."""
    end = next(case for case in results["steps"] if case["position"] == "end")
    errors = [case["error"] for case in results["agreement"]]
    peaks = {(c["who"], c["position"], c["prompts"], c["examples"]): c["bytes"] for c in results["memory"]}
    least, most = min(key[2:] for key in peaks), max(key[2:] for key in peaks)
    grown = peaks["ours", "end", *most] / peaks["ours", "end", *least]
    pairs = most[0] * most[1] / (least[0] * least[1])
    asked = [
        ("reward, prompt at the end: times faster", 1 / end["reward"]["ratio"], ">=", 8.0),
        ("whole step, prompt at the end: times faster", 1 / end["step"]["ratio"], ">=", 8.0),
        ("log-probabilities, largest difference to the published loop", max(errors), "<=", 1e-5),
        (f"peak memory for {pairs:.0f} times the pairs, prompt at the end: times as much", grown, "<=", 4.0),
    ]
    return judged(asked)


def main() -> None:
    """Measure, write, show."""
    arguments = parse_arguments()
    transformers.logging.set_verbosity_error()
    setting = replace(QUICK if arguments.quick else Setting(), device=arguments.device)
    if arguments.full:
        setting = replace(setting, layers=12)
    machine, begin = describe_machine(arguments.device), time.perf_counter()
    results: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks.scoring", *sys.argv[1:]]),
        "seconds": 0.0,
        "machine": machine,
        "setting": asdict(setting),
    }
    for name, part in measurements(setting, arguments.quick, arguments.repetitions).items():
        results[name] = part()
        results["seconds"] = round(time.perf_counter() - begin, 1)
        print(f"{results['seconds']:.0f} s: {name}", file=sys.stderr, flush=True)
        write_results(results, arguments.output)  # a run that is cut short loses one part
    results["goals"] = goals(results)
    publish(results, arguments.output, tables, usual)


if __name__ == "__main__":
    main()
