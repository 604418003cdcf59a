"""Whether a prompt helps, and which of its tokens matter: every rule, both sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from peft_interp.report.effect_rules import acts, carrying, tokens

Build = Callable[..., Any]


@pytest.mark.parametrize(
    ("prompt", "without", "losses", "answer", "words"),
    [
        (0.80, 0.50, (0.5, 0.5, 0.9), "yes", "accuracy rises from 0.50 without it to 0.80"),
        (0.21, 0.50, (1.5, 0.5, 0.9), "no", "it works against the task: accuracy falls from 0.50 without it to 0.21"),
        (0.52, 0.50, (0.9, 0.9, 0.9), "no", "the prompt does nothing for the task"),
        (0.52, 0.50, (0.6, 0.6, 0.9), "partly", "the loss goes from 0.90 to 0.60 nats"),
        (0.45, 0.50, (0.6, 0.6, 0.9), "no", "the prompt does not help the task: accuracy goes from 0.50"),
        (None, None, (0.5, 0.5, 0.9), "yes", "the loss goes from 0.90 to 0.50 nats"),
        (None, None, (1.5, 0.5, 0.9), "no", "it makes the task worse"),
        (None, None, (0.9, 0.9, 0.9), "no", "the loss is the same without it"),
    ],
)
def test_help_is_held_against_no_prompt(
    prompt: float | None, without: float | None, losses: Any, answer: str, words: str, reading: Build, measured: Build
) -> None:
    found = acts(reading(), measured(prompt, prompt, without, losses=losses))
    assert found[0] == answer
    assert words in found[1]


def test_the_noise_is_named(reading: Build, measured: Build) -> None:
    assert "within the noise of 200 rows" in acts(reading(), measured(0.52, 0.52, 0.50, losses=(0.9, 0.9, 0.9)))[1]


def test_nothing_is_said_of_what_was_not_measured(reading: Build, measured: Build) -> None:
    assert acts(reading(), None) == ("unknown", "no data given")

    assert acts(reading(), replace(measured(), without=None))[0] == "unknown"


def test_idle_tokens_are_named(reading: Build, measured: Build, effects: Build) -> None:
    texts = (" the", " verdict", " of", " bad", " good")
    behaviour = measured(token_effects=effects(0.0, 0.5, 0.002, 0.4, 0.05))
    assert tokens(reading(texts), behaviour) == (
        "partly",
        "2 of 5 tokens carry 80% of the effect of the text (' verdict', ' bad'); ' the', ' of' do nothing",
    )


def test_every_token_may_matter(reading: Build, measured: Build, effects: Build) -> None:
    answer, words = tokens(reading((" a", " b")), measured(token_effects=effects(0.9, 0.1)))
    assert answer == "yes"
    assert words.startswith("1 of 2 tokens carries")
    assert "nothing" not in words


def test_a_text_without_any_effect(reading: Build, measured: Build, effects: Build) -> None:
    assert tokens(reading((" a", " b")), measured(token_effects=effects(0.001, 0.0)))[0] == "no"


def test_long_lists_are_cut(reading: Build, measured: Build, effects: Build) -> None:
    words = tokens(reading([f" t{i}" for i in range(9)]), measured(token_effects=effects(*[0.0] * 8, 1.0)))[1]
    assert "' t3' and 4 more do nothing" in words


def test_without_effects_the_question_does_not_arise(reading: Build, measured: Build) -> None:
    assert tokens(reading(), measured()) is None
    assert tokens(reading(), None) is None


def test_the_fewest_tokens_that_carry_the_effect(effects: Build) -> None:
    assert carrying(effects(0.1, 0.5, 0.1, 0.3)) == [1, 3]
    assert carrying(effects(1.0)) == [0]
