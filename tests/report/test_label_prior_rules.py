"""What a report says of a gain that may be only the label prior."""

from __future__ import annotations

from typing import Any

import pytest

from peft_interp.metrics.label_prior import CalibratedSide, LabelPrior
from peft_interp.metrics.uncertainty import Estimate
from peft_interp.report.task_verdicts import prior


def found(beyond: float, error: float, gain: float = 0.2, only_prior: float = 0.15) -> LabelPrior:
    def side(raw: float, calibrated: float) -> CalibratedSide:
        return CalibratedSide(Estimate(raw, 0.03, 200), Estimate(calibrated, 0.03, 200), (0.5, -0.5))

    differences: dict[str, Any] = {
        "gain": Estimate(gain, 0.03, 200),
        "prior": Estimate(only_prior, 0.03, 200),
        "beyond": Estimate(beyond, error, 200),
    }
    sides: dict[str, Any] = {
        "without": side(0.5, 0.5 + only_prior),
        "as_text": None,
        "as_prompt": side(0.5 + gain, 0.5 + only_prior + beyond),
    }
    return LabelPrior(("bad", "great"), "batch", 32, 200, **sides, **differences)


@pytest.mark.parametrize(
    ("beyond", "error", "answer", "words"),
    [
        (0.10, 0.02, "yes", "both calibrated, the prompt adds 0.10"),
        (0.01, 0.01, "no", "without a prompt, calibrated label words do as well"),
        (-0.10, 0.02, "no", "without a prompt, calibrated label words do as well"),
        (0.05, 0.04, "unknown", "cannot be told from 200 rows"),
    ],
)
def test_the_answer_is_by_what_is_left_beyond_the_numbers(beyond: float, error: float, answer: str, words: str) -> None:
    said = prior(found(beyond, error))
    assert said is not None
    assert said[0] == answer
    assert said[1].startswith(words)
    assert "without a prompt 0.50 (calibrated 0.65)" in said[1]
    assert "numbers for the label words alone give 75% of the gain" in said[1]


def test_a_prompt_without_a_gain_has_no_share_of_it() -> None:
    none = found(0.0, 0.01, gain=-0.05)
    assert none.prior_share is None
    assert "of the gain" not in prior(none)[1]
    assert found(0.0, 0.01, gain=0.1, only_prior=0.3).prior_share == 1.0
    assert found(0.0, 0.01, gain=0.1, only_prior=-0.3).prior_share == 0.0
    assert prior(None) is None
