"""A report for the terminal, made of rich's parts; every text of the prompt goes in as text, never as markup."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from peft_interp.report.scores import Score, all_scores
from peft_interp.report.summary import headline, others, provenance
from peft_interp.report.texts import number, printable, signed, visible
from peft_interp.report.verdicts import QUESTIONS

if TYPE_CHECKING:
    from peft_interp.report.record import PromptReport

MARKS = {"yes": ("+", "green"), "partly": ("~", "yellow"), "no": ("x", "red"), "unknown": ("?", "dim")}
_NEAREST = 3


def to_rich(report: PromptReport) -> Group:
    """Prompt, verdicts, tokens and scores, one below the other; fits 80 columns."""
    parts: list[RenderableType] = [_prompt(report), _verdicts(report)]
    if report.reading.tokens:
        parts.append(_tokens(report))
    if scores := [score for score in all_scores(report) if score.main]:
        parts.append(_scores(scores))
    parts.append(Text("  ".join(f"{name}: {value}" for name, value in provenance(report)), style="dim"))
    return Group(*parts)


def _prompt(report: PromptReport) -> Panel:
    text = Text(printable(report.reading.text) or "(no text)", style="bold")
    return Panel(text, title=Text(headline(report)), title_align="left", border_style="cyan", padding=(1, 2))


def _verdicts(report: PromptReport) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    table.add_column(width=9, no_wrap=True)
    table.add_column(ratio=1)
    for verdict in report.verdicts:
        mark, style = MARKS[verdict.answer]
        question = QUESTIONS.get(verdict.question, verdict.question)
        words = Text.assemble((question, "bold"), "\n", printable(verdict.words))
        table.add_row(Text(f"{mark} {verdict.answer}", style=f"bold {style}"), words)
    return table


def _tokens(report: PromptReport) -> Table:
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
    table.add_column("score", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("beside", overflow="fold")
    table.add_column("better", no_wrap=True)
    for group, rows in groupby(scores, key=lambda score: score.group):
        table.add_row(Text(group, style="bold"), "", "", "")
        for score in rows:
            table.add_row(Text("  " + score.name), Text(score.value), Text(score.reference, style="dim"), score.better)
    return table
