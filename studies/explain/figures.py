"""What the cases say together, and the README's tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from scipy import stats

from peft_interp.records import markdown_table
from peft_interp.report.texts import number, percent
from studies.readme import put_tables

README = Path(__file__).parent / "README.md"
RECOVERED = 0.01  # nats
PLANTED, SOFT = ("rows", "noise", "effect"), ("trained", "turned")
PLANTED_COLUMNS = ("planted", "prompts", "KL < 0.01 (95% interval)", "exact text", "median KL, nats")
SOFT_COLUMNS = ("soft", "prompts", "median share (95% interval)", "calibrated", "text shown", "shown against")
EVERY_COLUMNS = ("prompt", "planted", "text", "from", "KL", "KL of none", "alignment")

Cases = Mapping[str, Mapping[str, Any]]


def of_model(cases: Cases, model: str) -> dict[str, Mapping[str, Any]]:
    """The records of a model."""
    return {key: record for key, record in cases.items() if record["model"] == model}


def of_kind(cases: Cases, *kinds: str) -> list[Mapping[str, Any]]:
    """The records of some kinds."""
    return [record for record in cases.values() if record["kind"] in kinds]


def figures(cases: Cases) -> dict[str, Any]:
    """Shares and medians, by kind of prompt; only of what was run."""
    found: dict[str, Any] = {"cases": len(cases)}
    for kind in (*PLANTED, "planted"):
        records = of_kind(cases, *(PLANTED if kind == "planted" else (kind,)))
        if records:
            near = [r["kl"] is not None and r["kl"] < RECOVERED for r in records]
            found[kind] = {
                "cases": len(records),
                "recovered": _share(near),
                "recovered_interval": tuple(stats.binomtest(sum(near), len(near)).proportion_ci()),
                "exact_text": _share([(r["nearest_text"] or "").strip() == r["planted"].strip() for r in records]),
                "median_kl": median(r["kl"] for r in records if r["kl"] is not None),
            }
    for kind in (*SOFT, "soft"):
        records = of_kind(cases, *(SOFT if kind == "soft" else (kind,)))
        if records:
            shares = [r["share"] for r in records if r["share"] is not None]
            found[kind] = {
                "cases": len(records),
                "median_share": median(shares),
                "median_share_interval": tuple(stats.quantile_test(shares, p=0.5).confidence_interval()),
                "median_calibrated_share": median(r["calibrated_share"] for r in records if r["share"] is not None),
                "texts_shown": _share([r["text"] is not None for r in records]),
                "shown_against": sum(r["shown_acts_against"] for r in records),
                "parts": _parts([r["parts_at"] for r in records]),
                "parts_from_question": _parts([r["parts_from_question"] for r in records]),
            }
    if cases:
        found["median_seconds"] = median(r["seconds"] for r in cases.values())
    return found


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)


def _parts(layers: Sequence[int | None]) -> tuple[int, float | None]:
    """How many part at all, and the median layer in which they do."""
    known = [layer for layer in layers if layer is not None]
    return len(known), median(known) if known else None


def tables(cases: Cases) -> str:
    """The figures and every case, as Markdown, model by model."""
    models = dict.fromkeys(record["model"] for record in cases.values())
    parts = [f"### {model}\n\n{_of_model(of_model(cases, model))}" for model in models]
    if len(models) > 1 and (soft := figures(cases).get("soft")):
        share = _with_interval(soft["median_share"], soft["median_share_interval"])
        parts.append(f"### Both\n\nOf {soft['cases']} soft prompts the median share is {share}.")
    return "\n\n".join(parts)


def _of_model(cases: Cases) -> str:
    found = figures(cases)
    layers = next((record["layers"] for record in cases.values() if "layers" in record), None)
    planted = [
        [
            *(kind, str(f["cases"]), _with_interval(f["recovered"], f["recovered_interval"])),
            *(percent(f["exact_text"]), number(f["median_kl"], 4)),
        ]
        for kind in (*PLANTED, "planted")
        if (f := found.get(kind))
    ]
    soft = [
        [
            *(kind, str(f["cases"]), _with_interval(f["median_share"], f["median_share_interval"])),
            *(percent(f["median_calibrated_share"]), percent(f["texts_shown"]), str(f["shown_against"])),
            *(_parted(f[name], f["cases"]) for name in ("parts", "parts_from_question")),
        ]
        for kind in (*SOFT, "soft")
        if (f := found.get(kind))
    ]
    rows = [
        [
            *(key, _line(r["planted"]), _line(r["text"]) or f"none: {r['reason']}", r["source"] or ""),
            number(r["kl"], 4),
            *(number(r["kl_without"], 3), number(r["alignment"])),
        ]
        for key, r in sorted(cases.items())
    ]
    devices = sorted({record["device"] for record in cases.values()})
    where = " or ".join({"cpu": "of one core", "cuda": "of one core beside a GPU"}[device] for device in devices)
    first = f"{found['cases']} prompts, a median of {number(found['median_seconds'], 0)} s {where} each."
    parts = ("parts from the nearest text", f"from a person's question (layer of {layers})")
    shown = [(PLANTED_COLUMNS, planted), ((*SOFT_COLUMNS, *parts), soft), (EVERY_COLUMNS, rows)]
    return "\n\n".join([first, *(markdown_table(columns, lines) for columns, lines in shown if lines)])


def _with_interval(value: float, ends: tuple[float, float]) -> str:
    """Exact intervals: Clopper and Pearson's of a share, that of order statistics of a median; none of few prompts."""
    known = all(end == end and abs(end) < 10 for end in ends)
    return f"{percent(value)} ({percent(ends[0])} to {percent(ends[1])})" if known else percent(value)


def _line(text: str | None) -> str:
    return (text or "").replace("\n", " ")


def _parted(found: tuple[int, float | None], count: int) -> str:
    """As in "2 of 6, layer 3"."""
    return f"{found[0]} of {count}" + ("" if found[1] is None else f", layer {number(found[1], 1)}")


def write_readme(cases: Cases) -> None:
    """Put the tables of what was run into the README."""
    if not cases:
        return
    put_tables(README, tables(cases))
