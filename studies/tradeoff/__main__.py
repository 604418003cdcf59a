"""The study in one command: every method on every task and split, then the report.

    python -m studies.tradeoff --config studies/tradeoff/embedded.toml --processes 2

Stopped and started again it does what is missing. Writes into `--output_dir`: a file for each point, `results.jsonl`,
`report.html` and `RESULTS.md`. Any causal LM and any data set, from the hub or from local files:

    python -m studies.tradeoff --config studies/tradeoff/hub.toml --model_name_or_path gpt2

Over several machines, each job one of n equal parts of the grid, and the report once they are done:

    python -m studies.tradeoff --config ... --shard 2/8 --output_dir outputs/tradeoff
    python -m studies.tradeoff --config ... --report_only --output_dir outputs/tradeoff [--points DIR ...]

Days later and on another machine, from what is published: `--points studies/tradeoff/smollm2/results.jsonl.gz`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # every process has a core; must be set before torch is loaded

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from studies.tradeoff.config import DEVICES, Study, read_study
from studies.tradeoff.points import Point, Shard, grid
from studies.tradeoff.report import write_report
from studies.tradeoff.store import ResultStore, read_lines, write_lines
from studies.tradeoff.workers import run_all

HERE = Path(__file__).resolve().parent
Records = Mapping[str, dict[str, Any]]


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line; whatever is not given stays as the configuration file has it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--config", type=Path, default=HERE / "embedded.toml", help="the study, a TOML file")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/tradeoff"))
    parser.add_argument("--processes", type=int, default=2, help="points at the same time; 0: in this process")
    parser.add_argument("--tasks", nargs="+", help="only these tasks")
    parser.add_argument("--methods", nargs="+", help="only these methods")
    parser.add_argument("--splits", type=int, nargs="+", help="only these splits (their seeds stay)")
    parser.add_argument("--shard", type=shard, help="only part i/n of the points, of 1/n to n/n, and no report")
    elsewhere = "points done elsewhere: folders of shards, or files of records (.jsonl or .gz)"
    parser.add_argument("--points", type=Path, nargs="+", default=[], help=elsewhere)
    parser.add_argument("--report_only", action="store_true", help="run nothing; report on what is there")
    parser.add_argument("--results", type=Path, help="run nothing; report on the records of this file (.jsonl or .gz)")
    own = parser.add_argument_group("in place of what the file says")
    for name in ("model_name_or_path", "tokenizer_name", "second_model", "data_dir"):
        own.add_argument(f"--{name}")
    for name in ("seeds", "budget", "prompt_length", "test_rows", "front_size"):
        own.add_argument(f"--{name}", type=int)
    own.add_argument("--device", choices=DEVICES)
    return parser.parse_args(argv)


def shard(text: str) -> Shard:
    """A part of the grid, as the command line names it."""
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def study_of(arguments: argparse.Namespace) -> Study:
    """The file's study with the command line's values."""
    names = ("model_name_or_path", "tokenizer_name", "second_model", "data_dir", "device")
    numbers = ("seeds", "budget", "prompt_length", "test_rows", "front_size")
    given: dict[str, Any] = {name: getattr(arguments, name) for name in (*names, *numbers)}
    return read_study(arguments.config, **given)


def chosen_points(study: Study, arguments: argparse.Namespace) -> list[Point]:
    """The grid, or the part of it that was asked for.

    Raises:
        ValueError: a task, method or split that the study does not have.
    """
    points = grid(study)
    for name in ("task", "method", "split"):
        if asked := getattr(arguments, f"{name}s"):
            known = dict.fromkeys(getattr(point, name) for point in points)
            if strange := [value for value in asked if value not in known]:
                raise ValueError(f"`--{name}s` names {strange}; the study has {', '.join(map(str, known))}.")
            points = [point for point in points if getattr(point, name) in asked]
    return arguments.shard.of(points) if arguments.shard else points


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
    console, study = Console(stderr=True), study_of(arguments)
    points = chosen_points(study, arguments)
    if arguments.results:
        known = {record["key"]: record for record in read_lines(arguments.results)}
        return report(arguments.output_dir, study, points, known, {}, console)
    store = ResultStore(arguments.output_dir)
    for folder in arguments.points:
        store.take_in(folder)
    if not arguments.report_only:
        run_missing(study, points, store, arguments.processes, console)
    done = {point.key: record for point in points if (record := store.read(point)) is not None}
    failed = {point.key: failure for point in store.missing(points) if (failure := store.failure(point)) is not None}
    if arguments.shard:
        console.print(f"shard {arguments.shard}: {len(done)} of {len(points)} points done, {len(failed)} failed")
        return len(failed)
    return report(arguments.output_dir, study, points, done, failed, console)


def report(
    folder: Path, study: Study, points: Sequence[Point], done: Records, failed: Records, console: Console
) -> int:
    """Write the report on these points, say what it is made of, and return how many failed.

    Args:
        folder: where it goes.
        study: what was run.
        points: all that were asked for, in the order of the grid.
        done: records by the points' keys.
        failed: failures by the points' keys.
        console: where it is said.
    """
    records = [done[point.key] for point in points if point.key in done]
    failures, not_run = [*failed.values()], len(points) - len(records) - len(failed)
    if not records:
        console.print(f"no point is done: {len(failures)} failed, {not_run} were not run.")
        return len(failures)
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / "results.jsonl", records)
    write_report(folder, study, records, failures, not_run)
    kinds = Counter(failure["error"] for failure in failures)
    console.print(f"{len(records)} points done, {not_run} not run, {len(failures)} failed {dict(kinds) or ''}")
    console.print(f"report: {folder / 'report.html'} and RESULTS.md beside it")
    return len(failures)


if __name__ == "__main__":
    sys.exit(min(1, main()))
