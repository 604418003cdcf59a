"""A report for the terminal, made of rich's parts; every string goes in through `seen`, never as markup."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from peft_interp.report.explained import ExplanationData
from peft_interp.report.explanation_sections import explanation_section
from peft_interp.report.provenance import provenance
from peft_interp.report.record import ReportData
from peft_interp.report.scores import Score, all_scores
from peft_interp.report.summary import conclusion, headline, needed, others
from peft_interp.report.templating import sentence
from peft_interp.report.texts import number, printable, signed, visible
from peft_interp.report.verdicts import QUESTIONS

MARKS = {"yes": ("+", "green"), "partly": ("~", "yellow"), "no": ("x", "red"), "unknown": ("?", "dim")}
_NEAREST = 3


def seen(words: str, style: str = "") -> Text:
    """A string as rich's text: no markup, nothing that steers the terminal."""
    return Text(printable(words), style=style)


def to_rich(report: ReportData) -> Group:
    """Conclusion, prompt, verdicts, tokens and scores, one below the other; fits 80 columns."""
    parts: list[RenderableType] = [seen(f"{conclusion(report)}.", "bold"), _prompt(report)]
    parts += [seen(f"{words}.", "bold")] if (words := needed(report)) else []
    parts.append(_verdicts(report))
    if report.reading.tokens:
        parts.append(_tokens(report))
    if scores := [score for score in all_scores(report) if score.main]:
        parts.append(_scores(scores))
    if report.explanation is not None:
        parts += explanation_parts(report.explanation)
    parts.append(seen("  ".join(f"{name}: {value}" for name, value in provenance(report)), "dim"))
    return Group(*parts)


def explanation_parts(data: ExplanationData) -> list[RenderableType]:
    """An explanation: its conclusion, the text, what it leaves, the candidates, where the layers part."""
    found = explanation_section(data)
    parts: list[RenderableType] = [seen(f"{found['conclusion']}.", "bold")]
    if found["text"]:
        parts.append(Panel(seen(found["text"], "bold"), border_style="cyan", padding=(1, 2)))
    parts.append(seen(sentence(found["unexplained"])))
    table = Table(title="candidates", title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    for title in ("text", "from", "share", "KL", "calibrated", "alignment", ""):
        table.add_column(title, overflow="fold")
    for one in found["candidates"]:
        cells = (one["text"], one["source"], one["share"], one["kl"], one["calibrated"], one["alignment"])
        table.add_row(*(seen(cell) for cell in (*cells, one["verdict"])))
    parts.append(table)
    if found["activations"]:
        parts.append(seen(sentence(found["activations"]["words"])))
    return [*parts, seen(found["note"], "dim")]


def _prompt(report: ReportData) -> Panel:
    text = seen(report.reading.text or "(no text)", "bold")
    return Panel(text, title=seen(headline(report)), title_align="left", border_style="cyan", padding=(1, 2))


def _verdicts(report: ReportData) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    table.add_column(width=9, overflow="fold")
    table.add_column(ratio=1)
    for verdict in report.verdicts:
        mark, style = MARKS.get(verdict.answer, MARKS["unknown"])
        question = QUESTIONS.get(verdict.question, verdict.question)
        words = Text.assemble(seen(question, "bold"), "\n", seen(verdict.words))
        table.add_row(seen(f"{mark} {verdict.answer}", f"bold {style}"), words)
    return table


def _tokens(report: ReportData) -> Table:
    measured, soft = report.faithfulness, not report.reading.discrete
    effects = measured.token_effects if measured is not None else ()
    table = Table(title="tokens", title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    table.add_column("#", justify="right", style="dim")
    table.add_column("token", overflow="fold")
    if soft:
        table.add_column("cosine", justify="right")
        table.add_column("euclidean", justify="right")
        table.add_column("also near", overflow="fold")
    if effects:
        table.add_column("left out: KL", justify="right")
        table.add_column("loss", justify="right")
    for place, token in enumerate(report.reading.tokens):
        cells = [Text(str(place + 1)), Text(visible(token.text))]
        if soft:
            near = "  ".join(visible(other.text) for other in others(token)[:_NEAREST])
            distances = (token.cosine_distance, token.euclidean_distance)
            cells += [*(Text(number(distance)) for distance in distances), Text(near, style="dim")]
        if place < len(effects):
            cells += [Text(number(effects[place].kl)), Text(signed(effects[place].loss_increase))]
        table.add_row(*cells)
    if soft:
        typical = (report.reading.typical_cosine_distance, report.reading.typical_euclidean_distance)
        usual = ["", "(usual)", *(number(distance) for distance in typical)]
        table.add_section()
        table.add_row(*(Text(cell, style="dim") for cell in usual))
    return table


def _scores(scores: Sequence[Score]) -> Table:
    table = Table(title="main scores", title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    table.add_column("score", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("beside", overflow="fold")
    table.add_column("better", overflow="fold")
    for group, rows in groupby(scores, key=lambda score: score.group):
        table.add_row(seen(group, "bold"), "", "", "")
        for score in rows:
            table.add_row(seen("  " + score.name), seen(score.value), seen(score.reference, "dim"), seen(score.better))
    return table
