"""The README's tables, between its marks, from `results.json`.

python -m studies.calibration.calibration_tables     # writes them anew without measuring
"""

import json
from pathlib import Path
from typing import Any

START, END = "<!-- results: start -->", "<!-- results: end -->"
SETS = (
    ("acceptability", "spearman"),
    ("acceptability", "kendall"),
    ("naturalness", "spearman"),
    ("naturalness", "kendall"),
    ("cola", "auc"),
)


def write_tables(results: dict[str, Any], readme: Path) -> None:
    """Replace what stands between the marks."""
    before, _, rest = readme.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    parts = [coefficients(results["calibration"]), readable(results["readable"])]
    parts += [ratings(name, table) for name, table in results["ratings"].items()]
    readme.write_text(before + START + "\n\n" + "\n\n".join(parts) + "\n\n" + END + after, encoding="utf-8")


def coefficients(calibration: dict[str, Any]) -> str:
    """The score in one line, and its threshold."""
    faults = " - ".join(f"{value} {name}" for name, value in calibration["coefficients"].items())
    made = calibration["provenance"]
    return (
        f"Made on {made['date']}. score = sigmoid({calibration['intercept']} - {faults}); readable from "
        f"{calibration['threshold']} on ({made['threshold_rule']})."
    )


def readable(results: dict[str, Any]) -> str:
    """Which share of each kind of text is called readable: by the score, by the flags, by both."""
    head = ["### Share called readable", "", "Score alone / no flag / both."]
    lines = [*head, "", "| texts | " + " | ".join(results) + " |", "|---|" + "---|" * len(results)]
    for kind in next(iter(results.values())):
        cells = [" / ".join(f"{results[name][kind][by]:.1%}" for by in ("score", "flags", "both")) for name in results]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratings(name: str, table: dict[str, Any]) -> str:
    """Agreement with people for one model."""
    heads = [f"{data} ({statistic})" for data, statistic in SETS]
    lines = [f"### Agreement with human ratings: {name}", "", "| measure | " + " | ".join(heads) + " |"]
    lines.append("|---|" + "---|" * len(heads))
    for measure, found in table.items():
        cells = [_cell(found[data][statistic]) for data, statistic in SETS]
        lines.append(f"| {measure} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(found: list[float] | None) -> str:
    return "never varies" if found is None else f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})"


if __name__ == "__main__":
    here = Path(__file__).parent
    write_tables(json.loads((here / "results.json").read_text(encoding="utf-8")), here / "README.md")
