"""What every benchmark reports alike: goals, where and when, tables in Markdown, in a README, in a terminal."""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

RANDOM = "GPT-2 of random weights"
START, END = "<!-- results: start -->", "<!-- results: end -->"


@dataclass(frozen=True)
class Table:
    """A title, column headings and rows of text."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def make_parser(about: str, folder: Path) -> argparse.ArgumentParser:
    """The command line that every benchmark has.

    Args:
        about: what it measures.
        folder: where `results.json` lies if nothing else is asked for.
    """
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes and few repetitions")
    parser.add_argument("--full", action="store_true", help="GPT-2's 12 layers instead of 4")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--output", type=Path, default=folder / "results.json")
    return parser


def publish(
    results: dict[str, Any],
    output: Path,
    tables: Callable[[dict[str, Any]], list[Table]],
    usual: Callable[[dict[str, Any]], str],
    model: str = RANDOM,
) -> None:
    """Write `results.json` and the tables of the README beside it, and show them in the terminal."""
    write_results(results, output)
    about, shown = provenance(results, usual(results["setting"]), model), tables(results)
    write_readme(output.parent / "README.md", about, shown)
    show(about, shown)


def write_results(results: dict[str, Any], output: Path) -> None:
    """All figures, to be read by programs."""
    output.write_text(json.dumps(results, indent=1) + "\n")


def judged(asked: Sequence[tuple[str, float, str, float]]) -> list[dict[str, Any]]:
    """Goals given as (name, value, "<=" or ">=", limit), and whether each is met."""
    return [
        {"name": n, "value": v, "sign": s, "limit": limit, "met": v <= limit if s == "<=" else v >= limit}
        for n, v, s, limit in asked
    ]


def goals_table(results: dict[str, Any]) -> Table:
    """The goals of a run."""
    rows = [
        [goal["name"], f"{goal['value']:.2g}", f"{goal['sign']} {goal['limit']:g}", "met" if goal["met"] else "missed"]
        for goal in results["goals"]
    ]
    return Table("Goals", ["quantity", "measured", "goal", ""], rows)


def in_seconds(value: float) -> str:
    """Seconds for a table."""
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def in_mib(value: float) -> str:
    """Bytes for a table."""
    return f"{value / 2**20:.0f} MiB"


def provenance(results: dict[str, Any], usual: str, model: str = RANDOM) -> str:
    """Where, when and how the figures were made, and the sizes that are usual in the tables."""
    setting = results["setting"]
    return (
        f"{made_on(results['machine'], results['command'], results['seconds'])}\n\n"
        f"{model}: width {setting['width']}, {setting['layers']} layers, vocabulary "
        f"{setting['vocabulary']:,}, fp32. Unless a table says otherwise: {usual}."
    )


def made_on(machine: dict[str, Any], command: str, seconds: float) -> str:
    """A sentence on where, when and how; `machine` is what `describe_machine` returns."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"Made on {machine['date'][:10]} at commit {machine['commit']} by `{command}` in {seconds:.0f} seconds on "
        f"{machine['device']} ({machine['cores']} cores, {machine['threads']} threads, load average "
        f"{machine['load_average']} at the start) with {versions}."
    )


def write_readme(readme: Path, about: str, tables: Sequence[Table]) -> None:
    """Replace what stands between the markers; a file without markers, or no file, is left alone."""
    text = readme.read_text() if readme.exists() else ""
    if START not in text or END not in text:
        return
    before, after = text.split(START)[0], text.split(END)[1]
    readme.write_text(f"{before}{START}\n\n{_markdown(about, tables)}\n\n{END}{after}")


def show(about: str, tables: Sequence[Table]) -> None:
    """To the terminal."""
    console = Console()
    for table in tables:
        shown = RichTable(*table.columns, title=table.title, title_justify="left")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    console.print(about, markup=False, highlight=False)


def _markdown(about: str, tables: Sequence[Table]) -> str:
    blocks = [about]
    for table in tables:
        lines = [table.columns, ["---"] * len(table.columns), *table.rows]
        blocks.append(f"### {table.title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(blocks)
