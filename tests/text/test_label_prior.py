"""Each estimator of the label prior gives what its formula says, and is moved by nothing that it should not see."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from peft_interp.text.label_bias import LabelBias
from peft_interp.text.label_prior import (
    PENALTY,
    batch_bias,
    content_free_bias,
    drawn_rows,
    estimate_bias,
    fitted_bias,
    with_bias,
)
from peft_interp.text.verbalizer import Verbalizer, right_answers

TASK = Verbalizer("{prompt} {text} It was", ("bad", "great"), calibration="batch")
GOOD: dict[str, Any] = {"words": ["bad", "great"], "values": [0.5, -0.5], "calibration": "batch", "rows": 32}
GOOD["template"] = TASK.template


def scores(rows: int = 40, labels: int = 3) -> torch.Tensor:
    return torch.randn(rows, labels, generator=torch.Generator().manual_seed(0)).mul(2).log_softmax(-1)


def test_batch_takes_the_mean_of_each_label_away() -> None:
    log_probs = torch.tensor([[-1.0, -3.0], [-2.0, -2.0]]).repeat(4, 1)
    assert batch_bias(log_probs).tolist() == [-0.5, 0.5]  # means -1.5 and -2.5, moved to mean 0
    assert (log_probs + batch_bias(log_probs)).mean(0).tolist() == [-2.0, -2.0]


def test_content_free_divides_by_the_mean_probability() -> None:
    probs = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.8, 0.2]])
    bias = content_free_bias(probs.log())
    assert bias.tolist() == pytest.approx([-math.log(4) / 2, math.log(4) / 2])  # means 0.8 and 0.2
    assert with_bias(probs.mean(0).log(), bias).exp().tolist() == pytest.approx([0.5, 0.5])


def test_fitted_is_where_the_gradient_is_zero() -> None:
    log_probs, gold = scores(), torch.arange(40) % 3
    bias = fitted_bias(log_probs, gold).requires_grad_()
    loss = torch.nn.functional.cross_entropy(log_probs.double() + bias, gold, reduction="sum")
    (loss + PENALTY / 2 * bias.square().sum()).backward()
    assert bias.grad is not None
    assert bias.grad.abs().max() < 1e-8
    assert float(bias.sum().detach()) == pytest.approx(0.0, abs=1e-9)


def test_fitted_stays_finite_where_a_label_is_always_right_by_far() -> None:
    gold = torch.tensor([0, 1] * 8)
    log_probs = torch.where(torch.nn.functional.one_hot(gold).bool(), 0.0, -300.0)
    assert fitted_bias(log_probs, gold).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    moved = fitted_bias(log_probs + torch.tensor([150.0, 0.0]), gold)
    assert right_answers(log_probs + torch.tensor([150.0, 0.0]) + moved, gold).all()


@pytest.mark.parametrize("normalised", [False, True])
def test_a_constant_on_a_label_changes_no_score_of_batch_calibration(normalised: bool) -> None:
    log_probs, moved = scores(), scores() + torch.tensor([3.0, -1.0, 0.5])
    moved = moved.log_softmax(-1) if normalised else moved
    plain = with_bias(log_probs, batch_bias(log_probs))
    assert not torch.allclose(with_bias(moved, torch.zeros(3)), plain, atol=0.1)
    torch.testing.assert_close(with_bias(moved, batch_bias(moved)), plain, atol=1e-5, rtol=1e-5)


def test_a_planted_prior_is_found_by_labels_up_to_the_penalty() -> None:
    log_probs, prior, gold = scores(400), torch.tensor([1.0, -1.5, 0.5]), torch.arange(400) % 3
    moved = fitted_bias(log_probs, gold) - fitted_bias(log_probs + prior, gold)
    torch.testing.assert_close(moved, prior.double(), atol=5e-3, rtol=0)


@pytest.mark.parametrize("calibration", ["batch", "content_free", "fitted"])
def test_prompts_are_calibrated_each_on_its_own(calibration: str) -> None:
    many, gold = torch.stack([scores(), scores().flip(0), scores() - scores()[:1]]), torch.arange(40) % 3
    together = estimate_bias(calibration, many, gold)
    assert together.shape == (3, 3)
    for one, bias in zip(many, together, strict=True):
        torch.testing.assert_close(estimate_bias(calibration, one, gold), bias, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(together.mean(-1), torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)


def test_what_says_nothing_about_the_prior_is_refused() -> None:
    with pytest.raises(ValueError, match="7 calibration rows say too little"):
        estimate_bias("batch", scores(7))
    with pytest.raises(ValueError, match="all 40 calibration rows have the label 2"):
        estimate_bias("fitted", scores(), torch.full((40,), 2))
    with pytest.raises(ValueError, match="'fitted'` needs labelled rows"):
        estimate_bias("fitted", scores())
    for broken in (math.nan, -math.inf):
        with pytest.raises(ValueError, match="are not finite"):
            estimate_bias("batch", scores().index_fill(0, torch.tensor([3]), broken))
    with pytest.raises(ValueError, match="`calibration='none'` estimates nothing"):
        estimate_bias("none", scores())
    with pytest.raises(
        ValueError, match="`calibration='bath'` is unknown; use one of none, batch, content_free, fitted"
    ):
        Verbalizer("{prompt} {text}", ["a", "b"], calibration="bath")


def test_drawn_rows_are_the_same_every_time_and_of_a_sorted_file_from_everywhere() -> None:
    assert drawn_rows(10) == list(range(10))
    assert drawn_rows(1000) == drawn_rows(1000)
    assert len(drawn_rows(1000)) == 64
    assert sum(place < 500 for place in drawn_rows(1000)) == pytest.approx(32, abs=12)


def test_numbers_are_stored_and_told() -> None:
    bias = LabelBias.from_dict(GOOD)
    later = {"chat": None, "first_token": False, "row_digests": []}  # what files of earlier versions do not have
    assert bias.to_dict() == {**GOOD, **later}
    asked = LabelBias.from_dict({**GOOD, "chat": "user", "first_token": True, "row_digests": ["0123456789ab"]})
    assert LabelBias.from_dict(asked.to_dict()) == asked
    assert asked.fits(replace(TASK, chat="user", first_token=True))
    assert not asked.fits(replace(TASK, chat="system", first_token=True))
    assert not asked.fits(replace(TASK, chat="user"))
    assert not asked.fits(TASK)
    assert bias.fits(TASK)
    assert not bias.fits(replace(TASK, chat="user"))
    assert not bias.fits(replace(TASK, first_token=True))
    assert not bias.fits(Verbalizer("{prompt} {text} It is", ("bad", "great")))
    assert not bias.fits(Verbalizer(TASK.template, ("great", "bad")))
    assert "bad +0.50, great -0.50 (nats, batch calibration on 32 training rows)" in bias.sentence()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": [0.5]}, "has 1 numbers for the label words"),
        ({"values": [0.5, math.nan]}, "must be finite"),
        ({"values": [0.5, 1e9]}, "must be finite and from -1000 to 1000"),
        ({"values": [True, 0.5]}, "must hold `words`, as many numbers"),
        ({"values": "high"}, "must hold `words`, as many numbers"),
        ({"words": [1, 2]}, "must hold `words`, as many numbers"),
        ({"rows": -1}, "must hold `words`, as many numbers"),
        ({"rows": None}, "must hold `words`, as many numbers"),
        ({"calibration": "none"}, "it must be one of batch, content_free, fitted"),
        ({"template": None}, "must hold `words`, as many numbers"),
        ({"chat": 7}, "must hold `words`, as many numbers"),
        ({"first_token": "no"}, "must hold `words`, as many numbers"),
        ({"row_digests": ["../../etc/pas"]}, "must hold `words`, as many numbers"),
        ({"row_digests": ["0123456789ab"] * 33}, "must hold `words`, as many numbers"),
        ({"row_digests": "0123456789ab"}, "must hold `words`, as many numbers"),
    ],
)
def test_stored_numbers_are_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelBias.from_dict({**GOOD, **change})


def test_trainers_accuracy_takes_the_numbers(byte_tokenizer: Any) -> None:
    from types import SimpleNamespace

    bad, great = TASK.label_token_ids(byte_tokenizer)
    prediction = SimpleNamespace(
        predictions=torch.tensor([[0.0, 1.0], [0.0, 3.0]]).numpy(),
        label_ids=torch.tensor([[-100, bad], [-100, great]]).numpy(),
    )
    assert TASK.accuracy(byte_tokenizer)(prediction) == {"accuracy": 0.5}
    bias = LabelBias.from_dict({**GOOD, "values": [1.0, -1.0]})
    assert TASK.accuracy(byte_tokenizer, bias)(prediction) == {"accuracy": 1.0}
