"""The perplexity term sets in when it should and rises to its full weight."""

from __future__ import annotations

import pytest

from peft_interp.tuner.config import InterpPromptConfig


def weights(steps: int, **settings: int) -> list[float]:
    config = InterpPromptConfig(perplexity_weight=2.0, **settings)
    return [config.perplexity_weight_at(step) for step in range(steps)]


def test_without_a_schedule_the_weight_is_there_from_the_first_step() -> None:
    assert weights(3) == [2.0, 2.0, 2.0]


def test_it_starts_at_the_start_step_and_not_before() -> None:
    assert weights(4, perplexity_start_step=2) == [0.0, 0.0, 2.0, 2.0]


def test_it_rises_in_equal_steps_and_stays() -> None:
    assert weights(6, perplexity_warmup_steps=3) == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0])


def test_start_and_rise_combine() -> None:
    wanted = [0.0, 1.0, 2.0, 2.0]
    assert weights(4, perplexity_start_step=1, perplexity_warmup_steps=1) == pytest.approx(wanted)
