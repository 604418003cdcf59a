"""What counts as an explanation, by hand-made figures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from peft_interp.explain.judging import alignment, calibrated, calibrated_kl
from peft_interp.explain.readings import read_layers
from peft_interp.report import PromptExplanation
from peft_interp.report.explained import ExplanationCandidate, LabelShares, why_no_text

GOOD = ExplanationCandidate("a text", "search", 0.1, 0.01, 0.8, 0.1, 0.02, 0.9, 0.9, 0.95)


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (GOOD, ""),
        (replace(GOOD, share=0.49), "too far"),
        (replace(GOOD, share=0.99, alignment=-0.01), "against"),
        (replace(GOOD, share=0.1, alignment=-0.5), "against"),
        (replace(GOOD, alignment=0.2), "apart"),
        (replace(GOOD, calibrated_share=-0.1, alignment=0.6), "uncalibrated"),
        (replace(GOOD, calibrated_share=-0.1), ""),  # the rows are told apart as the prompt does, with another strength
        (ExplanationCandidate("a text", "search", 0.1, None, 0.8, 0.1), ""),  # no label words
    ],
)
def test_what_explains(candidate: ExplanationCandidate, reason: str) -> None:
    assert why_no_text(candidate, 0.5, 0.2) == reason
    assert why_no_text(candidate, 0.004, 0.002) == "idle"


def test_a_calibrated_share_of_next_to_nothing_decides_nothing() -> None:
    assert why_no_text(replace(GOOD, calibrated_share=-5.0), 0.5, 0.01) == ""


def test_calibration_takes_off_what_every_row_has() -> None:
    scores = torch.randn(10, 3).log_softmax(-1)
    assert calibrated_kl(scores, scores + torch.tensor([1.0, -2.0, 0.5])) == pytest.approx(0, abs=1e-6)
    assert calibrated(scores).exp().sum(-1) == pytest.approx(torch.ones(10))
    assert alignment(scores, scores + torch.tensor([1.0, -2.0, 0.5])) == pytest.approx(1)
    assert alignment(scores, -scores) == pytest.approx(-1)
    assert alignment(scores, torch.zeros(10, 3)) == 0


def test_words_say_what_is_left() -> None:
    labels = (LabelShares(" great", 0.7, 0.4, 0.5), LabelShares(" terrible", 0.3, 0.5, 0.5))
    found = PromptExplanation("a text", "", (GOOD,), 0.5, 0.2, 20, 20, 100, "PROMPT_TUNING", labels)
    assert found.conclusion() == "On 20 rows this text does 80% of what the prompt does (it closes 0.400 of 0.500 nats)"
    assert found.unexplained() == (
        "the nearest text leaves 0.100 of 0.500 nats; calibrated, that is with each label's mean taken off, 0.020 of "
        "0.200; most of all the share of 'great': 70% with the prompt, 40% with the text, 50% with none; prompt and "
        "text choose the same label in 95% of the rows"
    )
    stronger = replace(found, candidates=(replace(GOOD, calibrated_kl=0.3, calibrated_share=-0.5),))
    assert "taken off, 0.300 of 0.200 (rows differ in the same way, and not as strongly or more so); " in (
        stronger.unexplained()
    )
    little = replace(stronger, candidates=(replace(stronger.candidates[0], alignment=0.3),))
    assert "rows differ in the same way" not in little.unexplained()
    none = replace(found, text=None, reason="against")
    assert none.conclusion().startswith("No text explains this prompt: the nearest texts act against the prompt")
    assert "No text is shown as an explanation" in none.to_html()
    assert "explains" not in none.to_text().split("No text explains this prompt")[0]


def test_a_text_and_a_reason_do_not_go_together() -> None:
    found = PromptExplanation("a text", "", (GOOD,), 0.5, 0.2, 20, 20, 100, "PROMPT_TUNING")
    for wrong in ({"reason": "against"}, {"text": None}, {"candidates": []}, {"schema": 9}):
        with pytest.raises(ValueError, match="make it again"):
            PromptExplanation.from_dict(found.to_dict() | wrong)


def test_layers_that_are_read_are_spread() -> None:
    assert read_layers(4) == [1, 2, 3]
    assert read_layers(30) == [1, 10, 20, 29]
    assert read_layers(1) == []
