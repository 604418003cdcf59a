"""A report in Markdown, as a model card on the Hub or a file on GitHub shows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from peft_interp.report.scores import all_scores
from peft_interp.report.summary import headline, others, provenance
from peft_interp.report.texts import fenced, in_markdown, number, signed, visible
from peft_interp.report.verdicts import QUESTIONS

if TYPE_CHECKING:
    from peft_interp.report.record import PromptReport

_NEAREST = 3


def to_markdown(report: PromptReport, heading_level: int = 2) -> str:
    """The report as Markdown: prompt, verdicts, scores, tokens, provenance.

    Every text of the prompt stands in a code block it cannot leave, or with its special characters written as
    entities, so that it cannot bring markup, links, mentions or cell borders of its own.

    Args:
        report: what to write.
        heading_level: level of the first heading, 1 to 5; the others are one below.

    Raises:
        ValueError: a level that leaves no room for the next.
    """
    if not 1 <= heading_level <= 5:
        raise ValueError(f"`heading_level={heading_level}` must be 1 to 5, with one more level below it.")
    top, below = "#" * heading_level, "#" * (heading_level + 1)
    blocks = [f"{top} The prompt", fenced(report.reading.text or "(no text)"), in_markdown(headline(report)) + "."]
    blocks += [f"{below} Verdict", "\n".join(_verdicts(report))]
    if scores := all_scores(report):
        blocks += [f"{below} Scores"]
        for group, rows in groupby(scores, key=lambda score: score.group):
            cells = [[in_markdown(row.name), row.value, row.reference, row.better, row.meaning] for row in rows]
            blocks.append(_table([group, "value", "beside", "better", "meaning"], "lrlll", cells))
    if report.reading.tokens:
        blocks += [f"{below} Tokens", _tokens(report)]
    blocks += [f"{below} Where this comes from"]
    blocks.append("\n".join(f"- {name}: {in_markdown(value)}" for name, value in provenance(report)))
    return "\n\n".join(blocks) + "\n"


def _verdicts(report: PromptReport) -> Iterator[str]:
    for verdict in report.verdicts:
        question = QUESTIONS.get(verdict.question, verdict.question)
        yield f"- {question} **{verdict.answer.capitalize()}**: {in_markdown(verdict.words)}."


def _tokens(report: PromptReport) -> str:
    soft, measured = not report.reading.discrete, report.faithfulness
    effects = measured.token_effects if measured is not None else ()
    names, sides = ["place", "token"], "rl"
    if soft:
        names, sides = [*names, "cosine distance", "euclidean distance", "also near"], sides + "rrl"
    if effects:
        names, sides = [*names, "KL when left out", "loss when left out"], sides + "rr"
    rows = []
    for place, token in enumerate(report.reading.tokens):
        cells = [str(place + 1), in_markdown(visible(token.text))]
        if soft:
            near = (in_markdown(visible(other.text)) for other in others(token)[:_NEAREST])
            cells += [number(token.cosine_distance), number(token.euclidean_distance), ", ".join(near)]
        if place < len(effects):
            cells += [number(effects[place].kl), signed(effects[place].loss_increase)]
        rows.append(cells)
    table = _table(names, sides, rows)
    if not soft:
        return table
    typical = (number(report.reading.typical_cosine_distance), number(report.reading.typical_euclidean_distance))
    return f"{table}\n\nTokens lie {typical[0]} (cosine) and {typical[1]} (euclidean) from their nearest neighbours."


def _table(names: Sequence[str], sides: str, rows: Sequence[Sequence[str]]) -> str:
    rule = ["---:" if side == "r" else "---" for side in sides]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (names, rule, *rows))
