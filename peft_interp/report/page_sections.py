"""The page's pictures of a prompt: its tokens one by one, what it does, and how it reads."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from peft_interp.metrics.results import AnswerShares, Faithfulness, PromptReading, TokenEffect, TokenReading
from peft_interp.report.charts import bar, perplexity_strip, position, signed_bar
from peft_interp.report.summary import others
from peft_interp.report.texts import BLANK, in_html, number, percent, printable, share, signed, visible
from peft_interp.report.thresholds import accuracy_noise

if TYPE_CHECKING:
    from peft_interp.report.record import PromptReport

_MOST = 8  # label words drawn; the ones that are answered most


def answer_shares(shares: AnswerShares) -> str:
    """Three bars for each label word: its mean probability on every side, beside the share of rows it belongs to."""
    order = range(len(shares.label_words))
    drawn = sorted(sorted(order, key=lambda i: -shares.as_prompt[i])[:_MOST])
    left = len(order) - len(drawn)
    note = (
        "The mean probability of each label word among the label words; the tick is the share of rows whose answer it "
        "is." + (f" The {len(drawn)} of {len(order)} that the prompt answers most." if left else "")
    )
    words = "".join(f"<li>{_word(shares, i)}</li>" for i in drawn)
    return f'<h3 class="apart">Answers</h3><p class="note">{note}</p><ul class="answers">{words}</ul>'


def _word(shares: AnswerShares, i: int) -> str:
    sides = [("as prompt", shares.as_prompt), ("as text", shares.as_text), ("no prompt", shares.without)]
    rows = "".join(
        f'<dt>{name}</dt><dd>{bar(side[i], tick=shares.rows[i])}</dd><dd class="value">{percent(side[i])}</dd>'
        for name, side in sides
        if side is not None
    )
    of = f'<span class="meaning">answer of {percent(shares.rows[i])} of the rows</span>'
    return f'<h4>{_name(shares.label_words[i])} {of}</h4><dl class="bars">{rows}</dl>'


def _name(text: str) -> str:
    return in_html(printable(text).strip() or visible(text))


_NEAREST = 4


def tokens(report: PromptReport) -> str:
    """One cell for each token: its text, how near its vector is, what leaving it out does."""
    reading, measured = report.reading, report.faithfulness
    if not reading.tokens:
        return ""
    effects = measured.token_effects if measured is not None else ()
    strongest = max((effect.kl for effect in effects), default=0.0)
    steepest = max((abs(effect.loss_increase) for effect in effects), default=0.0)
    cells = []
    for place, token in enumerate(reading.tokens):
        parts = [f'<span class="token">{_blanks(token.text)}</span>']
        if place < len(effects):
            parts.append(_effect(effects[place], strongest, steepest))
        if not reading.discrete:
            parts.append(_nearness(token, reading))
        cells.append(f"<li>{''.join(parts)}</li>")
    notes = [f"A blank in front of a token is written {BLANK}."]
    if effects:
        notes.append("Bars: how the answers (KL) and the loss change when this token is left out of the text.")
    if not reading.discrete:
        notes.append(
            "Cosine and euclidean: the distance from the vector to this token; the ticks are how far tokens lie from "
            f"their nearest neighbours ({number(reading.typical_cosine_distance)} and "
            f"{number(reading.typical_euclidean_distance)})."
        )
    note = f'<p class="note">{" ".join(notes)}</p>'
    return _section("tokens", "Token by token", f'{note}<ol class="tokens">{"".join(cells)}</ol>')


def _blanks(text: str) -> str:
    return in_html(visible(text)).replace(BLANK, f'<span class="gap">{BLANK}</span>')


def _effect(effect: TokenEffect, strongest: float, steepest: float) -> str:
    kl = f'<span class="figure">KL <b>{number(effect.kl)}</b></span>{bar(effect.kl / strongest if strongest else 0.0)}'
    loss = signed(effect.loss_increase)
    return f'{kl}<span class="figure">loss <b>{loss}</b></span>{signed_bar(effect.loss_increase, steepest)}'


def _nearness(token: TokenReading, reading: PromptReading) -> str:
    """Both distances (cosine up to 1, a right angle), and other tokens near the vector."""
    near = " ".join(f"<code>{in_html(visible(other.text))}</code>" for other in others(token)[:_NEAREST])
    cosine = bar(token.cosine_distance, tick=min(reading.typical_cosine_distance, 1.0))
    typical = reading.typical_euclidean_distance
    longest = max(typical, *(other.euclidean_distance for other in reading.tokens)) or 1.0
    euclidean = bar(token.euclidean_distance / longest, tick=typical / longest)
    also = f'<p class="neighbours">also near: {near}</p>' if near else ""
    return (
        f'<span class="figure">cosine <b>{number(token.cosine_distance)}</b></span>{cosine}'
        f'<span class="figure">euclidean <b>{number(token.euclidean_distance)}</b></span>{euclidean}{also}'
    )


def behaviour(report: PromptReport) -> str:
    """The task as prompt, as text and without; and how far apart the answers lie."""
    measured = report.faithfulness
    if measured is None:
        return ""
    inner = f'<div class="pair"><div>{_task(measured)}</div><div>{_answers(measured)}</div></div>'
    inner += answer_shares(measured.answers) if measured.answers is not None else ""
    return _section("behaviour", "What it does", inner)


def _task(measured: Faithfulness) -> str:
    sides = [("as prompt", measured.as_prompt), ("as text", measured.as_text), ("no prompt", measured.without)]
    known = [(name, side) for name, side in sides if side is not None and not math.isnan(side.loss)]
    by_accuracy = all(performance.accuracy is not None for _, performance in known)
    highest = max((performance.loss for _, performance in known), default=0.0) or 1.0
    rows = []
    for name, performance in known:
        accuracy = performance.accuracy
        if by_accuracy and accuracy is not None:
            noise = accuracy_noise(accuracy, accuracy, measured.rows) / math.sqrt(2)
            value, picture = number(accuracy), bar(accuracy, noise=noise)
        else:
            value, picture = number(performance.loss), bar(performance.loss / highest)
        rows.append(f'<dt>{name}</dt><dd>{picture}</dd><dd class="value">{value}</dd>')
    title = "Accuracy" if by_accuracy else "Loss, nats"
    note = f"On {measured.rows:,} rows; the thin band is the noise of so many." if by_accuracy else "Lower is better."
    if measured.as_prompt_shared is not None and len(known) == len(sides) and not by_accuracy:
        note += (
            " With no prompt a row's first token is predicted by nothing and does not count; without it the loss as "
            f"prompt is {number(measured.as_prompt_shared.loss)}."
        )
    return f'<h3>{title}</h3><p class="note">{note}</p><dl class="bars">{"".join(rows)}</dl>'


def _answers(measured: Faithfulness) -> str:
    rows = [
        ("same likeliest word", bar(measured.top1_agreement), share(measured.top1_agreement)),
        ("Jensen-Shannon", bar(measured.js / math.log(2)), number(measured.js)),
        ("KL divergence", bar(measured.kl), number(measured.kl)),
    ]
    items = "".join(f'<dt>{name}</dt><dd>{line}</dd><dd class="value">{value}</dd>' for name, line, value in rows)
    note = "How the answers of prompt and text compare: 100%, 0 and 0 nats where the text is the prompt."
    return f'<h3>Prompt against text</h3><p class="note">{note}</p><dl class="bars">{items}</dl>'


def readability(report: PromptReport) -> str:
    """The text's perplexity beside reference levels, and accuracy against readability."""
    parts = [part for part in (_strip(report), _position(report)) if part]
    inner = "".join(f"<div>{part}</div>" for part in parts)
    return _section("readability", "How it reads", f'<div class="pair">{inner}</div>') if parts else ""


def _strip(report: PromptReport) -> str:
    measure = report.scrutability.measures.get("perplexity") if report.scrutability is not None else None
    if measure is None or not 0 < measure.value < math.inf:
        return ""
    levels = [("people", measure.human), ("shuffled", measure.shuffled), ("random tokens", measure.random)]
    known = [(name, level) for name, level in levels if level is not None and 0 < level < math.inf]
    note = "Beside the medians of prompts that people wrote, of the same with shuffled words, and of random tokens."
    return f'<h3>Perplexity</h3><p class="note">{note}</p>{perplexity_strip(measure.value, known)}{_standing(report)}'


def _standing(report: PromptReport) -> str:
    """The composite score, and where the text stands among prompts that people wrote."""
    judged = report.scrutability
    if judged is None:
        return ""
    rows = [] if math.isnan(judged.score) else [("readability score", judged.score, number(judged.score))]
    percentile = judged.measures["nll"].percentile if "nll" in judged.measures else None
    if percentile is not None:
        rows.append(("as fluent as", percentile / 100, f"{percentile:.0f} of 100"))
    items = "".join(f'<dt>{name}</dt><dd>{bar(part)}</dd><dd class="value">{value}</dd>' for name, part, value in rows)
    return f'<dl class="bars">{items}</dl>' if items else ""


def _position(report: PromptReport) -> str:
    measured, judged = report.faithfulness, report.scrutability
    nll = judged.measures.get("nll") if judged is not None else None
    if measured is None or nll is None or measured.as_prompt.accuracy is None or not math.isfinite(nll.value):
        return ""
    rivals = [(printable(rival.name), rival.nll, rival.accuracy) for rival in report.rivals]
    rivals = [rival for rival in rivals if math.isfinite(rival[1]) and math.isfinite(rival[2])]
    without = measured.without.accuracy if measured.without is not None else None
    picture = position((nll.value, measured.as_prompt.accuracy), rivals, nll.human, without)
    note = "Up is better at the task, left is more fluent."
    return f'<h3>Accuracy against readability</h3><p class="note">{note}</p>{picture}'


def _section(name: str, title: str, inner: str) -> str:
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{in_html(title)}</h2>\n{inner}\n</section>'
