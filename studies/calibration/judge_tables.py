"""The tables of the judges, between their marks, from `judges.json`.

python -m studies.calibration.judge_tables     # writes them anew without measuring
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

START, END = "<!-- judges: start -->", "<!-- judges: end -->"
COLUMNS = (("acceptability", "spearman"), ("naturalness", "spearman"), ("cola", "auc"))
HEADS = ("acceptability (Spearman)", "naturalness (Spearman)", "CoLA (AUC)")


def write_tables(results: Mapping[str, Any], files: Iterable[Path]) -> None:
    """Replace what stands between the marks of each file."""
    parts = [agreement_table(results), readable_table(results), named_table(results)]
    for path in files:
        before, _, rest = path.read_text(encoding="utf-8").partition(START)
        after = rest.partition(END)[2]
        path.write_text(before + START + "\n\n" + "\n\n".join(parts) + "\n\n" + END + after, encoding="utf-8")


def agreement_table(results: Mapping[str, Any]) -> str:
    """Every measure against people, by judge."""
    lines = ["| judge | measure | " + " | ".join(HEADS) + " |", "|---|---|" + "---|" * len(HEADS)]
    for judge, found in results.items():
        for measure, by_set in found["ratings"].items():
            cells = [_cell(by_set[kind][statistic]) for kind, statistic in COLUMNS]
            lines.append(f"| {judge} | {measure} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def readable_table(results: Mapping[str, Any]) -> str:
    """Which share of each kind of text is called readable: score alone / no flag / both."""
    lines = ["| texts | n | " + " | ".join(results) + " |", "|---|---|" + "---|" * len(results)]
    first = next(iter(results.values()))["readable"]
    for kind in first:
        shares = [results[judge]["readable"][kind] for judge in results]
        cells = [" / ".join(f"{share[by]:.1%}" for by in ("score", "flags", "both")) for share in shares]
        lines.append(f"| {kind} | {first[kind]['texts']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def named_table(results: Mapping[str, Any]) -> str:
    """The texts that an earlier score was wrong about."""
    lines = ["| text | right | " + " | ".join(results) + " |", "|---|---|" + "---|" * len(results)]
    for text, known in next(iter(results.values()))["named"].items():
        found = [results[judge]["named"][text] for judge in results]
        cells = [f"{'yes' if one['readable'] else 'no'} ({one['score']:.2f})" for one in found]
        lines.append(f"| {text} | {'yes' if known['right'] else 'no'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(found: list[float] | None) -> str:
    return "never varies" if found is None else f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})"


if __name__ == "__main__":
    here = Path(__file__).parent
    known = json.loads((here / "judges.json").read_text(encoding="utf-8"))
    write_tables(known, (here / "README.md", here.parents[1] / "docs" / "metrics.md"))
