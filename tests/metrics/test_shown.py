"""What `repr` shows of a result fits a screen and has the main numbers."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import pytest

from peft_interp.metrics.answer_results import AnswerShares
from peft_interp.metrics.differentials import DIFFERENTIALS
from peft_interp.metrics.readability_metrics import METRICS
from peft_interp.metrics.results import (
    Faithfulness,
    Flag,
    Measure,
    Neighbour,
    Performance,
    PromptReading,
    Scrutability,
    TokenEffect,
    TokenReading,
    Waywardness,
)

LONG = "seventeen words and more " * 20
TOKEN = TokenReading(3, " film", 0.123456, 1.5, tuple(Neighbour(i, f" word{i}", 0.1) for i in range(50)))
GOOD = Performance(0.123456, 0.75)
RESULTS = [
    TOKEN,
    PromptReading("INTERP_PROMPT", LONG, (TOKEN,) * 100, False, "start", 0.5, 2.0),
    Faithfulness(
        rows=64,
        skipped_rows=0,
        positions="answers",
        cosine_distance=0.1,
        euclidean_distance=0.2,
        logit_mse=0.3,
        kl=0.4,
        js=0.5,
        top1_agreement=0.6,
        as_prompt=GOOD,
        as_text=GOOD,
        without=GOOD,
        token_error_rate=0.7,
        token_effects=(TokenEffect(0.1, 0.2),) * 100,
        answers=AnswerShares(tuple(range(99)), (LONG,) * 99, (0.1,) * 99, (0.1,) * 99, (0.1,) * 99),
    ),
    AnswerShares(tuple(range(99)), (" good",) * 99, (0.1,) * 99, (0.1,) * 99, (0.1,) * 99),
    Waywardness(LONG, 0.9, GOOD, GOOD),
    Scrutability(LONG, {m.name: Measure(1 / 3) for m in METRICS}, (Flag("repetition", LONG),) * 5, 0.51234, False),
    Measure(1 / 3, 1 / 7, 1 / 9, None, 50.0),
]


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_a_result_fits_a_screen(result: Any) -> None:
    lines = repr(result).splitlines()
    assert len(lines) <= 12
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith(f"{type(result).__name__}(")


def test_main_numbers_are_shown() -> None:
    by_name = {type(result).__name__: repr(result) for result in RESULTS}
    assert "kl=0.4" in by_name["Faithfulness"]
    assert "as_text=Performance(loss=0.1235, accuracy=0.75)" in " ".join(by_name["Faithfulness"].split())
    for shown in ("verdict='unreadable'", "score=0.5123"):
        assert shown in " ".join(by_name["Scrutability"].split())
    assert "mean_cosine_distance=0.1235" in by_name["PromptReading"]


def test_every_differential_is_a_number_of_the_result() -> None:
    """The records and the fields that hold them."""
    hints = typing.get_type_hints(Faithfulness)
    names = {field.name for field in dataclasses.fields(Faithfulness)}
    assert {differential.name for differential in DIFFERENTIALS} <= names
    numbers = {name for name, hint in hints.items() if hint in (float, float | None)}
    assert numbers == {differential.name for differential in DIFFERENTIALS}
