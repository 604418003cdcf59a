"""The page's sections: what each says of a report. One more is a function, a template, and a line in `SECTIONS`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from markupsafe import Markup

from peft_interp.metrics.answer_results import AnswerShares
from peft_interp.metrics.results import Faithfulness, PromptReading, TokenEffect, TokenReading
from peft_interp.metrics.uncertainty import Estimate, share_of
from peft_interp.report.charts import (
    CHANGE_SCALE,
    KL_SCALE,
    LOSS_SCALE,
    bar,
    interval,
    perplexity_strip,
    position,
    signed_bar,
)
from peft_interp.report.explanation_sections import explanation_section
from peft_interp.report.provenance import provenance
from peft_interp.report.record import ReportData
from peft_interp.report.row_sections import rows
from peft_interp.report.scores import Score, all_scores
from peft_interp.report.summary import others, usage
from peft_interp.report.texts import BLANK, number, percent, printable, share, signed, visible

Bar = tuple[str, Markup, str]  # name, picture, value
_MOST = 8  # label words drawn; the ones that are answered most
_NEAREST = 4
_WIDEST_NLL = 50.0  # nats; a log-perplexity above has no place in the picture
_REACH = 0.5  # a difference of accuracies at either end of its line


def sides_of(report: ReportData, measured: Faithfulness) -> list[tuple[str, Any]]:
    """(name, how the task goes) as prompt, as text and without, as far as they were measured."""
    sides = [("as prompt", measured.as_prompt), ("as text", measured.as_text), ("no prompt", measured.without)]
    if report.reading.is_text:
        sides = sides[1:]
    return [(name, side) for name, side in sides if side is not None and not math.isnan(side.loss)]


def tokens(report: ReportData) -> dict[str, Any] | None:
    """One cell for each token: its text, how near its vector is, what leaving it out does."""
    reading, measured = report.reading, report.faithfulness
    if not reading.tokens:
        return None
    effects = measured.token_effects if measured is not None else ()
    cells = []
    for place, token in enumerate(reading.tokens):
        figures = _effect(effects[place]) if place < len(effects) else []
        near: list[str] = []
        if not reading.discrete:
            figures += _nearness(token, reading)
            near = [visible(other.text) for other in others(token)[:_NEAREST]]
        cells.append({"text": visible(token.text), "figures": figures, "near": near})
    notes = [f"A blank in front of a token is written {BLANK}."]
    if effects:
        rows = max(effect.rows for effect in effects)
        on = f" on {rows} rows" if rows else ""
        notes.append(
            f"Bars: how the answers (KL) and the loss change{on} when this token is left out of the text, up to "
            f"{KL_SCALE:g} and {CHANGE_SCALE:g} nats; the thin band is twice the standard error."
        )
    if not reading.discrete:
        notes.append(
            "Cosine and euclidean: the distance from the vector to this token; the ticks are how far tokens lie from "
            f"their nearest neighbours ({number(reading.typical_cosine_distance)} and "
            f"{number(reading.typical_euclidean_distance)})."
        )
    return {"note": " ".join(notes), "cells": cells, "blank": BLANK}


def _effect(effect: TokenEffect) -> list[Bar]:
    span = None
    if effect.kl_error is not None:
        span = tuple((effect.kl + sign * 2 * effect.kl_error) / KL_SCALE for sign in (-1, 1))
    loss = signed_bar(effect.loss_increase, CHANGE_SCALE, effect.loss_error)
    kl = bar(effect.kl / KL_SCALE, span=span)  # type: ignore[arg-type]
    return [("KL", kl, number(effect.kl)), ("loss", loss, signed(effect.loss_increase))]


def _nearness(token: TokenReading, reading: PromptReading) -> list[Bar]:
    """Both distances: cosine up to 1, a right angle; euclidean up to twice what is usual."""
    cosine = bar(token.cosine_distance, tick=min(reading.typical_cosine_distance, 1.0))
    longest = 2 * reading.typical_euclidean_distance or 1.0
    euclidean = bar(token.euclidean_distance / longest, tick=0.5)
    return [
        ("cosine", cosine, number(token.cosine_distance)),
        ("euclidean", euclidean, number(token.euclidean_distance)),
    ]


def behaviour(report: ReportData) -> dict[str, Any] | None:
    """The task as prompt, as text and without; and how far apart the answers lie."""
    measured = report.faithfulness
    if measured is None:
        return None
    return {
        "task": _task(report, measured),
        "answers": None if report.reading.is_text else _answers(measured),
        "differences": _differences(report, measured),
        "words": _answer_shares(report, measured.answers) if measured.answers is not None else None,
    }


def _task(report: ReportData, measured: Faithfulness) -> dict[str, Any]:
    known = sides_of(report, measured)
    by_accuracy = all(performance.accuracy is not None for _, performance in known)
    bars: list[Bar] = []
    for name, performance in known:
        if by_accuracy:
            span = share_of(performance.accuracy, measured.rows).interval()
            bars.append((name, bar(performance.accuracy, span=span), number(performance.accuracy)))
        else:
            bars.append((name, bar(performance.loss / LOSS_SCALE), number(performance.loss)))
    note = f"On {measured.rows:,} rows; the thin band is where the accuracy on many more rows lies (95%)."
    if measured.label_bias is not None and measured.without is not None:
        note += f" No prompt has {'its own' if measured.without_bias else 'no'} numbers for the label words."
    if not by_accuracy:
        note = f"Lower is better; the bars end at {LOSS_SCALE:g} nats."
        if measured.as_prompt_shared is not None and measured.without is not None:
            note += (
                " With no prompt a row's first token is predicted by nothing and does not count; without it the loss "
                f"as prompt is {number(measured.as_prompt_shared.loss)}."
            )
    return {"title": "Accuracy" if by_accuracy else "Loss, nats", "note": note, "bars": bars}


def _answers(measured: Faithfulness) -> list[Bar]:
    return [
        ("same likeliest word", bar(measured.top1_agreement), share(measured.top1_agreement)),
        ("Jensen-Shannon", bar(measured.js / math.log(2)), number(measured.js)),
        ("KL divergence", bar(measured.kl / KL_SCALE), number(measured.kl)),
    ]


def _differences(report: ReportData, measured: Faithfulness) -> list[Bar]:
    """Paired differences of accuracy with their intervals."""
    paired = measured.paired
    if paired is None:
        return []
    name = "text" if report.reading.is_text else "prompt"
    found = [] if report.reading.is_text else [("text less prompt", paired.text_accuracy)]
    found.append((f"{name} less no prompt", paired.gained_accuracy))
    return [
        (title, interval(estimate.mean, estimate.interval(), _REACH), with_interval(estimate))
        for title, estimate in found
        if estimate is not None
    ]


def with_interval(estimate: Estimate, confidence: float = 0.95) -> str:
    """A difference with its interval: "+0.03 (-0.01 to +0.07)"."""
    low, high = estimate.interval(confidence)
    if not math.isfinite(low):
        return f"{signed(estimate.mean)} (too few rows)"
    return f"{signed(estimate.mean)} ({signed(low)} to {signed(high)})"


def _answer_shares(report: ReportData, shares: AnswerShares) -> dict[str, Any]:
    """Bars for each label word: its mean probability on every side, beside the share of rows it belongs to."""
    order = range(len(shares.label_words))
    drawn = sorted(sorted(order, key=lambda i: -shares.as_prompt[i])[:_MOST])
    note = (
        "The mean probability of each label word among the label words; the tick is the share of rows whose answer it "
        "is."
    )
    if len(drawn) < len(order):
        note += f" The {len(drawn)} of {len(order)} that the prompt answers most."
    sides = [("as prompt", shares.as_prompt), ("as text", shares.as_text), ("no prompt", shares.without)]
    sides = sides[1:] if report.reading.is_text else sides
    words = []
    for i in drawn:
        text = shares.label_words[i]
        bars = [(n, bar(s[i], tick=shares.rows[i]), percent(s[i])) for n, s in sides if s is not None]
        words.append({"name": text.strip() or visible(text), "rows": percent(shares.rows[i]), "bars": bars})
    return {"note": note, "words": words}


def readability(report: ReportData) -> dict[str, Any] | None:
    """The text's perplexity beside reference levels, and accuracy against readability."""
    found = {"strip": _strip(report), "standing": _standing(report), "position": _position(report)}
    return found if any(found.values()) else None


def _strip(report: ReportData) -> Markup | None:
    measure = report.scrutability.measures.get("perplexity") if report.scrutability is not None else None
    if measure is None or not 0 < measure.value < math.inf:
        return None
    levels = [("people", measure.human), ("shuffled", measure.shuffled), ("random tokens", measure.random)]
    known = [(name, level) for name, level in levels if level is not None and 0 < level < math.inf]
    return perplexity_strip(measure.value, known)


def _standing(report: ReportData) -> list[Bar]:
    """The composite score, and where the text stands among prompts that people wrote."""
    judged = report.scrutability
    if judged is None:
        return []
    bars: list[Bar] = []
    if not math.isnan(judged.score):
        bars.append(("readability score", bar(judged.score), number(judged.score)))
    percentile = judged.measures["nll"].percentile if "nll" in judged.measures else None
    if percentile is not None:
        bars.append(("as fluent as", bar(percentile / 100), f"{percentile:.0f} of 100"))
    return bars


def _position(report: ReportData) -> Markup | None:
    """Accuracy against log-perplexity; a soft prompt's text stands at its own accuracy, too."""
    measured, judged = report.faithfulness, report.scrutability
    nll = judged.measures.get("nll") if judged is not None else None
    accuracy = measured.as_prompt.accuracy if measured is not None else None
    if measured is None or nll is None or not _has_place(nll.value, accuracy) or accuracy is None:
        return None
    rivals = [(printable(rival.name), rival.nll, rival.accuracy) for rival in report.rivals]
    rivals = [rival for rival in rivals if _has_place(rival[1], rival[2])]
    without = measured.without.accuracy if measured.without is not None else None
    human = nll.human if _has_place(nll.human, 0.0) else None
    without = without if _has_place(0.0, without) else None
    vectors, as_text = not report.reading.discrete, measured.as_text.accuracy
    as_text = as_text if vectors and _has_place(0.0, as_text) else None
    return position((nll.value, accuracy), rivals, human, without, vectors, as_text)


def _has_place(nll: float | None, accuracy: float | None) -> bool:
    """Whether a point can be drawn: a stranger's numbers may be anything."""
    return nll is not None and accuracy is not None and 0 <= nll <= _WIDEST_NLL and 0 <= accuracy <= 1


def scores(report: ReportData) -> list[tuple[str, list[Score]]]:
    """Every score, by group."""
    return [(group, list(found)) for group, found in groupby(all_scores(report), key=lambda score: score.group)]


def explained(report: ReportData) -> dict[str, Any] | None:
    """What a text that behaves like the prompt says of it, where one was looked for."""
    return None if report.explanation is None else explanation_section(report.explanation)


@dataclass(frozen=True)
class Section:
    """A part of the page below the verdicts.

    Attributes:
        name: its anchor; `templates/sections/<name>.html` writes it and is given `content`.
        title: its heading.
        content: what it says of a report; nothing (None, an empty list) leaves the section out.
    """

    name: str
    title: str
    content: Callable[[ReportData], Any]

    @property
    def template(self) -> str:
        """Its file."""
        return f"sections/{self.name}.html"


SECTIONS = (
    Section("tokens", "Token by token", tokens),
    Section("behaviour", "What it does", behaviour),
    Section("rows", "Which rows it answers", rows),
    Section("explained", "A text that does the same", explained),
    Section("readability", "How it reads", readability),
    Section("scores", "Every score", scores),
    Section("use", "How to use it", usage),
    Section("origin", "Where this comes from", provenance),
)
