"""A report in Markdown, as a model card on the Hub or a file on GitHub shows it."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from peft_interp.report.explanation_sections import explanation_section
from peft_interp.report.provenance import provenance
from peft_interp.report.record import ReportData
from peft_interp.report.scores import all_scores
from peft_interp.report.summary import conclusion, headline, needed, others
from peft_interp.report.templating import TEMPLATES, Markdown, render_markdown
from peft_interp.report.texts import number, signed, visible
from peft_interp.report.verdicts import QUESTIONS

_NEAREST = 3
_LEFT, _RIGHT = Markdown("---"), Markdown("---:")


def to_markdown(report: ReportData, heading_level: int = 2, with_prompt: bool = True) -> str:
    """The report as Markdown: prompt, verdicts, scores, tokens, provenance.

    Every text of the prompt stands in a code block it cannot leave, or with its special characters written as
    entities, so that it cannot bring markup, links, mentions or cell borders of its own.

    Args:
        report: what to write.
        heading_level: level of the first heading, 1 to 5; the others are one below.
        with_prompt: begin with the prompt's text; without, with the verdict.

    Raises:
        ValueError: a level that leaves no room for the next.
    """
    if not 1 <= heading_level <= 5:
        raise ValueError(f"`heading_level={heading_level}` must be 1 to 5, with one more level below it.")
    questions = [
        {"question": QUESTIONS.get(v.question, v.question), "answer": v.answer.capitalize(), "words": v.words}
        for v in report.verdicts
    ]
    return render_markdown(
        TEMPLATES,
        "report.md",
        top=Markdown("#" * heading_level),
        below=Markdown("#" * (heading_level + 1)),
        with_prompt=with_prompt,
        text=report.reading.text or "(no text)",
        headline=headline(report),
        needed=needed(report),
        conclusion=conclusion(report),
        verdicts=questions,
        scores=[(group, list(rows)) for group, rows in groupby(all_scores(report), key=lambda score: score.group)],
        tokens=_tokens(report) if report.reading.tokens else None,
        explanation=explanation_section(report.explanation) if report.explanation is not None else None,
        facts=provenance(report),
    )


def _tokens(report: ReportData) -> dict[str, Any]:
    soft, measured = not report.reading.discrete, report.faithfulness
    effects = measured.token_effects if measured is not None else ()
    columns = [("place", _RIGHT), ("token", _LEFT)]
    if soft:
        columns += [("cosine distance", _RIGHT), ("euclidean distance", _RIGHT), ("also near", _LEFT)]
    if effects:
        columns += [("KL when left out", _RIGHT), ("loss when left out", _RIGHT)]
    rows = []
    for place, token in enumerate(report.reading.tokens):
        cells = [str(place + 1), visible(token.text)]
        if soft:
            near = ", ".join(visible(other.text) for other in others(token)[:_NEAREST])
            cells += [number(token.cosine_distance), number(token.euclidean_distance), near]
        if effects:
            known = [effects[place]] if place < len(effects) else []
            cells += [*(number(effect.kl) for effect in known), *(signed(effect.loss_increase) for effect in known)]
            cells += [""] * (len(columns) - len(cells))
        rows.append(cells)
    typical = (number(report.reading.typical_cosine_distance), number(report.reading.typical_euclidean_distance))
    note = f"Tokens lie {typical[0]} (cosine) and {typical[1]} (euclidean) from their nearest neighbours."
    return {"columns": columns, "rows": rows, "note": note if soft else ""}
