"""What the cases say together, and the README's tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from peft_interp.records import markdown_table
from peft_interp.report.texts import number, percent

README = Path(__file__).parent / "README.md"
START, END = "<!-- results: start -->", "<!-- results: end -->"
RECOVERED = 0.01  # nats
PLANTED, SOFT = ("rows", "noise", "effect"), ("trained", "turned")

Cases = Mapping[str, Mapping[str, Any]]


def of_kind(cases: Cases, *kinds: str) -> list[Mapping[str, Any]]:
    """The records of some kinds."""
    return [record for key, record in cases.items() if key.split("-")[0] in kinds]


def figures(cases: Cases) -> dict[str, Any]:
    """Shares and medians, by kind of prompt; only of what was run."""
    found: dict[str, Any] = {"cases": len(cases)}
    for kind in PLANTED:
        records = of_kind(cases, kind)
        if records:
            found[kind] = {
                "cases": len(records),
                "recovered": _share([r["kl"] is not None and r["kl"] < RECOVERED for r in records]),
                "exact_text": _share([(r["nearest_text"] or "").strip() == r["planted"].strip() for r in records]),
                "median_kl": median(r["kl"] for r in records if r["kl"] is not None),
            }
    for kind in SOFT:
        records = of_kind(cases, kind)
        if records:
            found[kind] = {
                "cases": len(records),
                "median_share": median(r["share"] for r in records if r["share"] is not None),
                "median_calibrated_share": median(r["calibrated_share"] for r in records if r["share"] is not None),
                "texts_shown": _share([r["text"] is not None for r in records]),
                "shown_against": sum(r["shown_acts_against"] for r in records),
                "median_parts_at": _middle([r["parts_at"] for r in records if r["parts_at"] is not None]),
            }
    soft = of_kind(cases, *SOFT)
    if soft:
        found["soft_median_share"] = median(r["share"] for r in soft if r["share"] is not None)
    if cases:
        found["median_seconds"] = median(r["seconds"] for r in cases.values())
    return found


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)


def _middle(values: Sequence[int]) -> float | None:
    return median(values) if values else None


def tables(cases: Cases) -> str:
    """The figures and every case, as Markdown."""
    found = figures(cases)
    planted = [
        [kind, str(f["cases"]), percent(f["recovered"]), percent(f["exact_text"]), number(f["median_kl"], 4)]
        for kind in PLANTED
        if (f := found.get(kind))
    ]
    soft = [
        [
            *(kind, str(f["cases"]), percent(f["median_share"]), percent(f["median_calibrated_share"])),
            *(percent(f["texts_shown"]), str(f["shown_against"]), number(f["median_parts_at"], 1)),
        ]
        for kind in SOFT
        if (f := found.get(kind))
    ]
    rows = [
        [
            *(key, r["planted"] or "", r["text"] or f"none: {r['reason']}", r["source"] or "", number(r["kl"], 4)),
            *(number(r["kl_without"], 3), number(r["alignment"])),
        ]
        for key, r in sorted(cases.items())
    ]
    return "\n\n".join(
        [
            f"{found['cases']} prompts, a median of {number(found['median_seconds'], 0)} s of one core each.",
            markdown_table(("planted", "prompts", "KL < 0.01", "exact text", "median KL, nats"), planted),
            markdown_table(
                *(
                    ("soft", "prompts", "median share", "calibrated", "text shown", "shown against", "parts in layer"),
                    soft,
                )
            ),
            markdown_table(("prompt", "planted", "text", "from", "KL", "KL of none", "alignment"), rows),
        ]
    )


def write_readme(cases: Cases) -> None:
    """Put the tables of what was run into the README."""
    if not cases:
        return
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(START)
    README.write_text(f"{before}{START}\n{tables(cases)}\n{END}{rest.split(END)[1]}", encoding="utf-8")
