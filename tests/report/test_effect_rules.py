"""Whether a prompt helps, and which of its tokens matter: every rule, both sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from peft_interp.metrics.results import Performance
from peft_interp.metrics.uncertainty import Estimate
from peft_interp.report.verdicts import acts, tokens

Build = Callable[..., Any]


@pytest.mark.parametrize(
    ("prompt", "without", "losses", "answer", "words"),
    [
        (0.80, 0.50, (0.5, 0.5, 0.9), "yes", "accuracy rises from 0.50 without it to 0.80"),
        (0.21, 0.50, (1.5, 0.5, 0.9), "no", "it works against the task: accuracy falls from 0.50 without it to 0.21"),
        (0.52, 0.50, (0.9, 0.9, 0.9), "no", "the prompt does nothing for the task"),
        (0.52, 0.50, (0.6, 0.6, 0.9), "partly", "the loss falls from 0.90 to 0.60 nats, but accuracy goes from 0.50"),
        (0.45, 0.50, (0.6, 0.6, 0.9), "no", "it works against the task: accuracy falls from 0.50"),
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


@pytest.mark.parametrize(("error", "answer"), [(0.05, "unknown"), (0.012, "yes")])
def test_few_rows_are_said_to_be_too_few(error: float, answer: str, reading: Build, measured: Build) -> None:
    """The same rise of accuracy on rows that show it and on rows that do not."""
    found = acts(reading(), measured(0.56, 0.56, 0.50, losses=(0.9, 0.9, 0.9), rows=50, error=error))
    assert found[0] == answer
    if answer == "unknown":
        assert found[1].startswith(
            "cannot be told from 50 rows: accuracy goes from 0.50 without it to 0.56, a change of"
        )


def test_losses_that_vary_more_than_they_differ_are_open(reading: Build, measured: Build) -> None:
    assert acts(reading(), measured(None, None, None, losses=(0.8, 0.8, 0.9), loss_error=0.1))[0] == "unknown"


def test_nothing_is_said_of_what_was_not_measured(reading: Build, measured: Build) -> None:
    assert acts(reading(), None) == ("unknown", "no data given")

    assert acts(reading(), replace(measured(), without=None))[0] == "unknown"


def test_tokens_that_are_not_needed_are_named(reading: Build, measured: Build, effects: Build) -> None:
    texts = (" the", " verdict", " of", " bad", " good")
    behaviour = measured(token_effects=effects(0.0, 0.5, 0.002, 0.4, 0.2), losses=(0.5, 0.5, 0.9))
    assert tokens(reading(texts), behaviour) == (
        "partly",
        "3 of 5 tokens are needed (' verdict', ' bad', ' good'); each of ' the', ' of' is not",
    )


def test_every_token_may_matter(reading: Build, measured: Build, effects: Build) -> None:
    answer, words = tokens(reading((" a", " b")), measured(token_effects=effects(0.9, 0.4)))
    assert (answer, words) == ("yes", "without any one of the 2 tokens of the text the loss rises")


@pytest.mark.parametrize("increase", [-0.03, 0.0, 0.004])
def test_tokens_that_stand_in_for_each_other(increase: float, reading: Build, measured: Build, effects: Build) -> None:
    """Leaving one out moves the answers, but by less than half of an even share of its work does the loss rise."""
    moved = [replace(effect, loss_increase=increase) for effect in effects(0.018, 0.018, 0.019)]
    behaviour = measured(0.8, 0.8, 0.5, losses=(0.5, 0.5, 0.8), token_effects=tuple(moved))
    answer, words = tokens(reading([" magazine"] * 3), behaviour)
    assert (answer, words[:34]) == ("no", "the text does as well without any ")


def test_a_text_without_any_effect(reading: Build, measured: Build, effects: Build) -> None:
    assert tokens(reading((" a", " b")), measured(token_effects=effects(0.001, 0.0)))[0] == "no"


@pytest.mark.parametrize(
    ("error", "answer"), [(0.2, "unknown"), (0.06, "unknown"), (0.02, "partly"), (0.0005, "partly")]
)
def test_more_rows_decide_and_turn_nothing_around(
    error: float, answer: str, reading: Build, measured: Build, effects: Build
) -> None:
    """One adapter, more and more rows: the errors fall, and once there is an answer it stays."""
    behaviour = measured(token_effects=effects(0.5, 0.001, error=error))
    found = tokens(reading((" film", " the")), behaviour)
    assert found[0] == answer
    assert ("cannot be told from 200 rows" in found[1]) == (answer == "unknown")


def test_effects_without_errors_decide_nothing(reading: Build, measured: Build, effects: Build) -> None:
    bare = tuple(replace(effect, kl_error=None, loss_error=None) for effect in effects(0.9, 0.9))
    assert tokens(reading((" a", " b")), measured(token_effects=bare))[0] == "unknown"


def test_long_lists_are_cut(reading: Build, measured: Build, effects: Build) -> None:
    words = tokens(reading([f" t{i}" for i in range(9)]), measured(token_effects=effects(*[0.0] * 8, 1.0)))[1]
    assert "' t3' and 4 more is not" in words


def test_without_effects_the_question_does_not_arise(reading: Build, measured: Build) -> None:
    assert tokens(reading(), measured()) is None
    assert tokens(reading(), None) is None


def test_what_counts_without_a_prompt_is_held_against_the_same_labels(reading: Build, measured: Build) -> None:
    """The first token of a row counts only with the prompt, and costs it 8 nats that say nothing."""
    behaviour = measured(None, None, None, losses=(8.02, 8.02, 6.76))
    assert acts(reading(), behaviour)[0] == "no"
    fair = replace(behaviour, as_prompt_shared=Performance(5.1))
    fair = replace(fair, paired=replace(behaviour.paired, saved_loss=Estimate(1.66, 0.1, 200)))
    assert acts(reading(), fair) == ("yes", "the loss goes from 6.76 to 5.10 nats")


def test_nothing_predicted_without_a_prompt_is_no_answer(reading: Build, measured: Build) -> None:
    nan = float("nan")
    answer, words = acts(reading(), measured(None, None, None, losses=(8.5, 8.5, nan)))
    assert answer == "unknown"
    assert "nan" not in words
