"""Hand-made records: a good prompt of tokens, a soft prompt that its text does not explain, and a hostile one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import pytest

from peft_interp.metrics.answer_results import AnsweredRow, AnsweredRows, AnswerPattern, AnswerShares, RowAnswers
from peft_interp.metrics.results import (
    Faithfulness,
    Flag,
    Measure,
    Neighbour,
    PairedEstimates,
    Performance,
    PromptReading,
    Scrutability,
    TokenEffect,
    TokenReading,
    Waywardness,
)
from peft_interp.metrics.uncertainty import Estimate
from peft_interp.report import PromptReport, Rival
from peft_interp.report.verdicts import decide

Build: TypeAlias = Callable[..., Any]
HOSTILE = [
    "<script>alert('x')</script>",
    " | ",
    "`",
    "```\n# Title",
    "\u202e",
    "[a](http://x.org)",
    "]]>",
    " &amp;",
    "[red]",
]


@pytest.fixture
def reading() -> Build:
    """`reading(texts=..., distance=0.0)`: a prompt of tokens, or of vectors `distance` away from them."""

    def build(texts: Sequence[str] = (" Is", " this", " film", " good", "?"), distance: float = 0.0) -> PromptReading:
        tokens = tuple(
            TokenReading(
                id=10 + place,
                text=text,
                cosine_distance=distance,
                euclidean_distance=2 * distance,
                neighbours=(
                    Neighbour(10 + place, text, distance),
                    Neighbour(40 + place, f" near{place}", min(distance + 0.1, 2.0)),
                    Neighbour(70 + place, f"wide{place}", min(distance + 0.2, 2.0)),
                ),
            )
            for place, text in enumerate(texts)
        )
        method = "PROMPT_TUNING" if distance else "INTERP_PROMPT"
        return PromptReading(method, "".join(texts), tokens, not distance, "start", 0.55, 1.2)

    return build


@pytest.fixture
def measured() -> Build:
    """`measured(prompt=0.8, text=0.8, without=0.5, rows=200, error=0.012, **fields)`: behaviour, by accuracies.

    `error` is the standard error of every paired difference of accuracies, `loss_error` that of losses.
    """

    def build(
        prompt: float | None = 0.8,
        text: float | None = 0.8,
        without: float | None = 0.5,
        rows: int = 200,
        losses: tuple[float, float, float] = (0.5, 0.5, 0.9),
        error: float = 0.012,
        loss_error: float = 0.01,
        **fields: Any,
    ) -> Faithfulness:
        def difference(first: float | None, second: float | None, spread: float) -> Estimate | None:
            return None if first is None or second is None else Estimate(first - second, spread, rows)

        paired = PairedEstimates(
            kl=Estimate(fields.get("kl", 0.0), 0.0, rows),
            top1_agreement=Estimate(fields.get("top1_agreement", 1.0), 0.0, rows),
            text_loss=difference(losses[1], losses[0], loss_error),
            text_accuracy=difference(text, prompt, error),
            saved_loss=difference(losses[2], losses[0], loss_error),
            gained_accuracy=difference(prompt, without, error),
        )
        sides = [Performance(loss, value) for loss, value in zip(losses, (prompt, text, without), strict=True)]
        same = {"cosine_distance": 0.0, "euclidean_distance": 0.0, "logit_mse": 0.0, "kl": 0.0, "js": 0.0}
        settings = {
            **same,
            "top1_agreement": 1.0,
            "token_error_rate": 0.0,
            "skipped_rows": 0,
            "paired": paired,
            **fields,
        }
        return Faithfulness(
            rows=rows, positions="answers", as_prompt=sides[0], as_text=sides[1], without=sides[2], **settings
        )

    return build


@pytest.fixture
def judged() -> Build:
    """`judged(readable=True, score=0.7, percentile=62.0, flags=(), **measures)`: readability."""

    def build(
        readable: bool = True,
        score: float = 0.7,
        percentile: float | None = 62.0,
        flags: Sequence[Flag] = (),
        text: str = " Is this film good?",
        **measures: Measure,
    ) -> Scrutability:
        known = {
            "nll": Measure(3.1, 3.4, 5.9, 8.2, percentile, "lower"),
            "perplexity": Measure(22.2, 30.0, 365.0, 3641.0, percentile, "lower"),
            "repetition": Measure(0.0, 0.1, 0.1, 0.0, 60.0, "lower"),
        }
        return Scrutability(text, {**known, **measures}, tuple(flags), score, readable)

    return build


@pytest.fixture
def effects() -> Build:
    """`effects(*kls, error=0.0005)`: leave-one-out effects with these KLs, on 200 rows."""

    def build(*kls: float, error: float = 0.0005) -> tuple[TokenEffect, ...]:
        return tuple(TokenEffect(kl, kl / 3 - 0.01, error, error, 200) for kl in kls)

    return build


@pytest.fixture
def report_of() -> Build:
    """`report_of(reading, scrutability=None, faithfulness=None, waywardness=None, **fields)`."""

    def build(
        reading: PromptReading,
        scrutability: Scrutability | None = None,
        faithfulness: Faithfulness | None = None,
        waywardness: Waywardness | None = None,
        **fields: Any,
    ) -> PromptReport:
        verdicts = decide(reading, scrutability, faithfulness, waywardness, chance=0.5)
        return PromptReport(reading, verdicts, scrutability, faithfulness, waywardness, **fields)

    return build


FILMS = (
    "a fast , funny , highly enjoyable movie .",
    "we never really feel involved with the story , as all of its ideas remain just that : abstract ideas .",
    "it 's a charming and often affecting journey .",
    "though everything might be literate and smart , it never took off and always seemed static .",
)


def answered(patterns: Sequence[tuple[int, int, int, int, int]]) -> AnsweredRows:
    """(label, as prompt, as text, without, rows) as a record, with two rows to read of each that differs."""
    known = [AnswerPattern(RowAnswers(*answers), count) for *answers, count in patterns]
    unlike = [pattern.answers for pattern in known if pattern.answers.differ]
    texts = [f"{FILMS[i % len(FILMS)]} It was" for i in range(2 * len(unlike))]
    rows = [AnsweredRow(3 * i, text, unlike[i % len(unlike)]) for i, text in enumerate(texts)]
    return AnsweredRows(tuple(known), tuple(rows))


@pytest.fixture
def good(reading: Build, judged: Build, measured: Build, effects: Build, report_of: Build) -> PromptReport:
    """A prompt of tokens that is its text, readable, and helps; everything a report can hold."""
    shares = AnswerShares((8, 9), (" terrible", " great"), (0.48, 0.52), (0.41, 0.59), (0.4, 0.6), (0.78, 0.22))
    patterns = [
        (0, 0, 0, 0, 64),
        (1, 1, 1, 0, 48),
        (1, 0, 0, 0, 22),
        (0, 0, 0, 1, 20),
        (1, 1, 1, 1, 18),
        (0, 1, 1, 0, 18),
        (1, 1, 1, -1, 10),
    ]
    behaviour = measured(
        token_effects=effects(0.02, 0.0, 0.5, 0.21, 0.004), answers=shares, answered=answered(patterns)
    )
    context = {
        "base_model": "gpt2",
        "data": "sentiment",
        "rows": 200,
        "label_words": ["terrible", "great"],
        "versions": {"peft": "0.21.2"},
        "training": {"learning_rate": 0.1},
    }
    rivals = (Rival("soft prompt", 0.79, 8.8), Rival("PEZ", 0.77, 7.6), Rival("PEZ + 0.3 perplexity", 0.76, 4.5))
    return report_of(reading(), judged(), behaviour, rivals=rivals, context=context)


@pytest.fixture
def soft(reading: Build, judged: Build, measured: Build, effects: Build, report_of: Build) -> PromptReport:
    """A soft prompt whose nearest tokens do not explain it."""
    texts = (" the", " of", " harmless", " words", "ing")
    shares = AnswerShares((8, 9), (" terrible", " great"), (0.5, 0.5), (0.45, 0.55), (0.9, 0.1), (0.9, 0.1))
    patterns = [
        (0, 0, 0, 0, 80),
        (1, 1, 0, 0, 74),
        (1, 0, 0, 0, 18),
        (0, 1, 0, 0, 12),
        (1, 1, 1, 1, 8),
        (0, 1, 0, 1, 4),
        (0, 1, 1, 1, 4),
    ]
    behaviour = measured(
        0.81, 0.52, losses=(0.5, 0.9, 0.9), kl=0.6, js=0.14, top1_agreement=0.44, logit_mse=1.8,
        cosine_distance=0.93, euclidean_distance=3.0, token_error_rate=0.2, skipped_rows=3,
        token_effects=effects(0.0, 0.002, 0.03, 0.01, 0.02), answers=shares, answered=answered(patterns),
    )  # fmt: skip
    scrutability = judged(False, 0.1, 2.0, perplexity=Measure(1979.0, 30.0, 365.0, 3641.0, 2.0), text="".join(texts))
    bound = Waywardness("Read this carefully", 1.0, Performance(0.5, 0.79), Performance(0.9, 0.5))
    return report_of(reading(texts, 0.93), scrutability, behaviour, bound, context={"base_model": "gpt2"})


@pytest.fixture
def hostile(reading: Build, judged: Build, measured: Build, effects: Build, report_of: Build) -> PromptReport:
    """A prompt that tries to break the page, the table and the terminal it stands on."""
    flags = (Flag("repetition", f"3 of 9 tokens repeat {HOSTILE[0]!r}"), Flag("copied", "copied <b>|</b>", False))
    behaviour = measured(token_effects=effects(*[0.1] * len(HOSTILE)))
    context = {"base_model": "<img src=x>", "data": "a|b `c`", "note": "</style><script>"}
    scrutability = judged(False, 0.0, 0.0, flags, text="".join(HOSTILE))
    rivals = (Rival('"><script>', 0.5, 3.0),)
    return replace(report_of(reading(HOSTILE), scrutability, behaviour, rivals=rivals, context=context))
