"""The study in one command: every method on every task and split, then the report.

    python studies/tradeoff/run_tradeoff.py --config studies/tradeoff/embedded.toml --processes 2

Stopped and started again it does what is missing. Writes into `--output_dir`: a file for each point, `results.jsonl`,
`report.html` and `RESULTS.md`. Any causal LM and any data set, from the hub or from local files:

    python studies/tradeoff/run_tradeoff.py --config studies/tradeoff/hub.toml --model_name_or_path gpt2
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # every process has a core; must be set before torch is loaded

from result_store import ResultStore, read_lines, write_lines
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from study_config import Study, read_study
from study_points import Point, grid
from study_report import write_report
from worker_pool import run_all

HERE = Path(__file__).resolve().parent


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line; whatever is not given stays as the configuration file has it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=HERE / "embedded.toml", help="the study, a TOML file")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/tradeoff"))
    parser.add_argument("--processes", type=int, default=2, help="points at the same time; 0: in this process")
    parser.add_argument("--tasks", nargs="+", help="only these tasks")
    parser.add_argument("--methods", nargs="+", help="only these methods")
    parser.add_argument("--report_only", action="store_true", help="run nothing; report on what is there")
    parser.add_argument("--results", type=Path, help="run nothing; report on the records of this file (.jsonl or .gz)")
    own = parser.add_argument_group("in place of what the file says")
    for name in ("model_name_or_path", "tokenizer_name", "second_model", "data_dir"):
        own.add_argument(f"--{name}")
    for name in ("seeds", "budget", "prompt_length", "test_rows", "front_size"):
        own.add_argument(f"--{name}", type=int)
    own.add_argument("--splits", type=int, nargs="+")
    return parser.parse_args(argv)


def study_of(arguments: argparse.Namespace) -> Study:
    """The file's study with the command line's values."""
    names = ("model_name_or_path", "tokenizer_name", "second_model", "data_dir")
    numbers = ("seeds", "budget", "prompt_length", "test_rows", "front_size")
    given: dict[str, Any] = {name: getattr(arguments, name) for name in (*names, *numbers)}
    given["splits"] = tuple(arguments.splits) if arguments.splits else None
    return read_study(arguments.config, **given)


def chosen_points(study: Study, arguments: argparse.Namespace) -> list[Point]:
    """The grid, or the part of it that was asked for."""
    return [
        point
        for point in grid(study)
        if (not arguments.tasks or point.task in arguments.tasks)
        and (not arguments.methods or point.method in arguments.methods)
    ]


def run_missing(study: Study, points: list[Point], store: ResultStore, processes: int, console: Console) -> None:
    """Do what is not done yet, with a bar; failures are kept and do not stop the others."""
    missing = store.missing(points)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=len(points), completed=len(points) - len(missing))
        for point, record in run_all(study, missing, processes):
            store.write(point, record)
            if "error" in record:
                console.print(f"failed: {point}: {record['error']}", markup=False)
            progress.update(bar, advance=1, description=str(point))


def main(argv: list[str] | None = None) -> int:
    """Run, report, and return how many points failed."""
    arguments = parse_arguments(argv)
    console = Console(stderr=True)
    study = study_of(arguments)
    points = chosen_points(study, arguments)
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    if arguments.results:
        known = {record["key"]: record for record in read_lines(arguments.results)}
        records, failures = [known[point.key] for point in points if point.key in known], []
    else:
        store = ResultStore(arguments.output_dir)
        if not arguments.report_only:
            run_missing(study, points, store, arguments.processes, console)
        records = [record for point in points if (record := store.read(point)) is not None]
        failures = [failure for point in store.missing(points) if (failure := store.failure(point)) is not None]
    if not records:
        console.print(f"no point is done: {len(failures)} failed, {len(points) - len(failures)} were not run.")
        return len(failures)
    write_lines(arguments.output_dir / "results.jsonl", records)
    not_run = len(points) - len(records) - len(failures)
    write_report(arguments.output_dir, study, records, failures, not_run)
    kinds = Counter(failure["error"] for failure in failures)
    console.print(f"{len(records)} points done, {not_run} not run, {len(failures)} failed {dict(kinds) or ''}")
    console.print(f"report: {arguments.output_dir / 'report.html'} and RESULTS.md beside it")
    return len(failures)


if __name__ == "__main__":
    sys.exit(min(1, main()))
