"""The one-standard-error rule: which of several prompts is delivered."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import torch

from peft_interp.scoring.choice import LEAST_ROWS, Contender, accuracy_error, most_readable, why
from peft_interp.scoring.rewards import gap_reward, standard_errors, weighed_gaps

Build = Callable[..., Any]


@pytest.mark.parametrize(
    ("contenders", "chosen"),
    [
        ([Contender(10.0, 2.0, 5.0), Contender(8.5, 2.0, 3.0), Contender(7.0, 2.0, 1.0)], 1),
        ([Contender(10.0, 2.0, 5.0), Contender(7.9, 2.0, 3.0)], 0),  # beyond one standard error
        ([Contender(10.0, None, 5.0), Contender(9.9, None, 3.0)], 0),  # error not known: the best score
        ([Contender(10.0, math.nan, 5.0), Contender(9.9, None, 3.0)], 0),
        ([Contender(9.0, 0.5, 5.0), Contender(10.0, 2.0, 6.0)], 0),  # the best one's own error counts
        ([Contender(10.0, 2.0, 5.0), Contender(10.0, 2.0, 5.0)], 0),  # equals: the first
        ([Contender(9.0, 2.0, 5.0), Contender(10.0, 2.0, 5.0)], 1),  # equally fluent: the better one
        ([Contender(10.0, 2.0, 5.0), Contender(9.0, 2.0, 1.0, flagged=True)], 0),  # repetition is not fluency
        ([Contender(10.0, 2.0, 5.0), Contender(9.0, 2.0, None)], 0),  # nothing is known of it
        ([Contender(10.0, 2.0, None), Contender(9.0, 2.0, 4.0)], 1),
        ([Contender(10.0, 1.0, 5.0, accuracy=0.7), Contender(8.0, 1.0, 4.0, accuracy=0.8)], 1),  # beaten on both axes
        ([Contender(-math.inf, None, None)], 0),
    ],
)
def test_cases(contenders: list[Contender], chosen: int) -> None:
    assert most_readable(contenders) == chosen


def test_no_choice_is_beaten_in_accuracy_and_fluency() -> None:
    draw = Random(0)
    for _ in range(300):
        contenders = [
            Contender(draw.gauss(0, 1), 0.5, draw.choice([None, draw.random()]), False, draw.random())
            for _ in range(draw.randint(1, 8))
        ]
        chosen = contenders[most_readable(contenders)]
        known = [c for c in contenders if c.nll is not None and chosen.nll is not None]
        assert not any(c.accuracy > chosen.accuracy and c.nll < chosen.nll for c in known)  # type: ignore[operator]


def test_another_start_than_the_best_score() -> None:
    """The knee of a front, say: those far above it are not more fluent and stay away."""
    contenders = [Contender(10.0, 1.0, 9.0), Contender(6.0, 1.0, 4.0), Contender(5.5, 1.0, 3.0)]
    assert most_readable(contenders, best=1) == 2


def test_words_say_which_score_chose() -> None:
    best, near, other = Contender(10.0, 2.0, 5.0), Contender(9.0, 2.0, 3.0), Contender(1.0, 2.0, 2.0)
    assert why(best, best, "validation score") == "the best validation score, 10"
    assert "most fluent within one standard error (2) of the best validation score, 10; its own is 9" in why(
        near, best, "validation score"
    )
    assert "none beats it" in why(other, best, "validation score")


def test_errors_by_hand() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0, 6.0], [5.0, 5.0, 5.0, 5.0]]).repeat(1, 10)  # 40 examples
    assert standard_errors(values) == pytest.approx([math.sqrt(140 / 39) / math.sqrt(40), 0.0])
    assert standard_errors(values[:, : LEAST_ROWS - 1]) == [None, None]
    log_probs, gold = torch.randn(3, 5, 2).log_softmax(-1), torch.tensor([0, 1, 1, 0, 1])
    torch.testing.assert_close(weighed_gaps(log_probs, gold, 200, 180).mean(-1), gap_reward(log_probs, gold))
    assert accuracy_error(0.81, 200) == pytest.approx(math.sqrt(0.81 * 0.19 / 200), rel=0.02)
    assert accuracy_error(1.0, LEAST_ROWS) > 0
    assert accuracy_error(0.5, LEAST_ROWS - 1) is None


def test_the_rule_costs_little_and_lucky_bests_are_luck() -> None:
    """Prompts of nearly the same worth: the best validation score of 30 promises more than new data give."""
    generator = torch.Generator().manual_seed(0)
    promised, kept, fluency = [], [], []
    for _ in range(400):
        worth = 0.75 + 0.01 * torch.randn(30, generator=generator)
        scores = torch.binomial(torch.full((30,), 200.0), worth.clamp(0, 1), generator=generator) / 200
        nll = torch.rand(30, generator=generator)
        contenders = [
            Contender(float(s), accuracy_error(float(s), 200), float(n)) for s, n in zip(scores, nll, strict=True)
        ]
        chosen = most_readable(contenders)
        promised.append(float(scores.max()))
        kept.append((float(worth[int(scores.argmax())]), float(worth[chosen])))
        fluency.append((float(nll[int(scores.argmax())]), float(nll[chosen])))
    best, ours = (sum(pair[i] for pair in kept) / 400 for i in (0, 1))
    assert sum(promised) / 400 - best > 0.04  # luck
    assert best - ours < 0.005  # what is given up, on new data
    assert sum(n[0] - n[1] for n in fluency) / 400 > 0.25  # and what is gained
