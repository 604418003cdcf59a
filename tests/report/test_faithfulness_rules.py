"""When a text may be believed: every rule, both sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from peft_interp.metrics.results import Performance, PromptReading, Waywardness
from peft_interp.metrics.uncertainty import Estimate
from peft_interp.report.verdicts import evidence, faithful, near, survives

Build = Callable[..., Any]


def test_tokens_that_survive_and_answer_alike_are_the_prompt(reading: Build, measured: Build) -> None:
    answer, words = faithful(reading(), measured())
    assert answer == "yes"
    assert "the text is the prompt" in words
    assert "200 rows" in words


@pytest.mark.parametrize("distance", [0.0, 0.01])
def test_nothing_is_faithful_without_data(reading: Build, distance: float) -> None:
    answer, words = faithful(reading(distance=distance), None)
    assert answer == "unknown"
    assert "no data given" in words


def test_a_method_without_vectors_has_no_text() -> None:
    nan = float("nan")
    answer, words = faithful(PromptReading("PREFIX_TUNING", "", (), False, "start", nan, nan), None)
    assert answer == "no"
    assert "no text" in words


def test_a_soft_prompt_that_its_text_does_not_explain(reading: Build, measured: Build) -> None:
    answer, words = faithful(reading(distance=0.93), measured(0.81, 0.52, kl=0.6, top1_agreement=0.5))
    assert (answer, words) == (
        "no",
        "do not explain this soft prompt by its nearest tokens: accuracy falls from 0.81 to 0.52",
    )


def test_without_label_words_the_loss_decides(reading: Build, measured: Build) -> None:
    apart = measured(None, None, None, losses=(0.4, 1.2, 1.3), kl=0.6)
    assert faithful(reading(distance=0.5), apart)[1].endswith("the loss rises from 0.40 to 1.20 nats")
    alike = measured(None, None, None, losses=(0.4, 0.41, 1.3))
    assert faithful(reading(distance=0.5), alike)[0] == "yes"


def test_a_soft_prompt_is_never_called_faithful_on_distance_alone(reading: Build, measured: Build) -> None:
    close = reading(distance=0.001)
    assert near(close)[0] == "yes"
    assert faithful(close, measured(0.81, 0.52, kl=0.6, top1_agreement=0.5))[0] == "no"
    assert faithful(close, measured(0.8, 0.8, kl=0.05, top1_agreement=0.9))[0] == "partly"


@pytest.mark.parametrize("apart", [{"kl": 0.67}, {"top1_agreement": 0.32}])
def test_the_same_accuracy_by_other_answers_is_no_explanation(apart: Any, reading: Build, measured: Build) -> None:
    answer, words = faithful(reading(distance=0.5), measured(0.53, 0.50, error=0.03, **apart))
    assert answer == "no"
    assert "they answer differently" in words


@pytest.mark.parametrize(("distance", "answer"), [(0.93, "partly"), (0.3, "yes")])
def test_a_text_that_acts_alike_is_believed_if_the_vectors_are_near(
    distance: float, answer: str, reading: Build, measured: Build
) -> None:
    alike = measured(0.8, 0.79, kl=0.004, top1_agreement=0.99, cosine_distance=distance)
    assert faithful(reading(distance=distance), alike)[0] == answer


@pytest.mark.parametrize(("rows", "error", "answer"), [(50, 0.05, "unknown"), (2000, 0.008, "no")])
def test_accuracies_within_the_noise_are_not_told_apart(
    rows: int, error: float, answer: str, reading: Build, measured: Build
) -> None:
    """A drop of 0.08 cannot be told on 50 rows and is certain on 2,000."""
    behaviour = measured(0.80, 0.72, rows=rows, error=error, kl=0.09, top1_agreement=0.9)
    answered, words = faithful(reading(distance=0.5), behaviour)
    assert answered == answer
    assert ("cannot be told from 50 rows: accuracy 0.80 as a prompt, 0.72 as text" in words) == (answer == "unknown")


@pytest.mark.parametrize(("error", "answer"), [(0.02, "unknown"), (0.002, "yes")])
def test_answers_are_alike_only_where_the_rows_show_it(
    error: float, answer: str, reading: Build, measured: Build
) -> None:
    """A mean KL below the limit with an interval that passes it is no proof."""
    behaviour = measured(0.8, 0.79, kl=0.01, top1_agreement=0.99, cosine_distance=0.3)
    paired = replace(behaviour.paired, kl=Estimate(0.01, error, 200))
    assert faithful(reading(distance=0.3), replace(behaviour, paired=paired))[0] == answer


def test_a_record_without_paired_errors_takes_those_of_different_rows(reading: Build, measured: Build) -> None:
    behaviour = replace(measured(0.80, 0.72, rows=50, kl=0.05, top1_agreement=0.9), paired=None)
    assert faithful(reading(distance=0.5), behaviour)[0] == "unknown"
    assert faithful(reading(distance=0.5), replace(behaviour, rows=5000))[0] == "no"


def test_a_prompt_of_flipped_labels_is_called_out(reading: Build, measured: Build) -> None:
    behaviour = measured(0.21, 0.76, 0.5, kl=0.9, top1_agreement=0.3)
    answer, words = faithful(reading(distance=0.4), behaviour, chance=0.5)
    assert answer == "no"
    assert words == ("it acts against what its text does: accuracy 0.21 as a prompt, 0.76 as text; guessing gives 0.50")


def test_flipped_labels_show_without_knowing_what_guessing_gives(reading: Build, measured: Build) -> None:
    behaviour = measured(0.21, 0.76, 0.55, kl=0.9, top1_agreement=0.3)
    assert "no prompt at all gives 0.55" in faithful(reading(distance=0.4), behaviour)[1]


def test_guessing_has_no_noise_of_its_own(reading: Build, measured: Build) -> None:
    """0.41 on 200 rows is below 0.50, and not surely below 0.50 measured on the same rows."""
    behaviour = measured(0.41, 0.60, 0.50, error=0.05, kl=0.9, top1_agreement=0.3)
    assert "acts against" in faithful(reading(distance=0.3), behaviour, chance=0.5)[1]
    assert faithful(reading(distance=0.3), behaviour) == (
        "no",
        "the prompt does worse than its text promises: accuracy 0.41 as a prompt, 0.60 as text",
    )


@pytest.mark.parametrize(("prompt", "chance"), [(0.52, 0.5), (0.47, 0.5), (0.3, 0.25)])
def test_a_prompt_that_is_merely_worse_does_not_act_against_its_text(
    prompt: float, chance: float, reading: Build, measured: Build
) -> None:
    answer, words = faithful(reading(distance=0.4), measured(prompt, 0.76, kl=0.9, top1_agreement=0.3), chance)
    assert answer == "no"
    assert "against" not in words


def test_tokens_that_come_back_otherwise_are_not_all_the_text_is(reading: Build, measured: Build) -> None:
    mild = faithful(reading(), measured(kl=0.003, top1_agreement=0.99, token_error_rate=0.25))
    assert mild[0] == "partly"
    strong = faithful(reading(), measured(0.81, 0.52, kl=0.6, top1_agreement=0.5, token_error_rate=0.25))
    assert strong == (
        "no",
        "the text is not tokenised to the prompt's tokens again; accuracy falls from 0.81 to 0.52",
    )


def test_the_same_tokens_in_another_place_show(reading: Build, measured: Build) -> None:
    """As stock prompt tuning does it under left padding."""
    answer, words = faithful(reading(), measured(kl=0.3, top1_agreement=0.9))
    assert answer == "partly"
    assert "does not stand where its text would" in words


@pytest.mark.parametrize(("distance", "answer", "how"), [(0.93, "no", "lie farther from"), (0.2, "yes", "no farther")])
def test_nearness_is_held_against_the_table(distance: float, answer: str, how: str, reading: Build) -> None:
    found = near(reading(distance=distance))
    assert found is not None
    assert found[0] == answer
    assert how in found[1]
    assert f"({distance:.2f})" in found[1]
    assert "(0.55)" in found[1]


def test_tokens_have_no_distance_to_speak_of(reading: Build) -> None:
    assert near(reading()) is None


def test_survival(reading: Build, measured: Build) -> None:
    assert survives(reading(), None) is None
    assert survives(reading(), measured())[0] == "yes"
    assert survives(reading(), measured(skipped_rows=3)) == (
        "partly",
        "tokenised again it gives the same tokens; 3 of 203 rows are tokenised differently after it and were left out",
    )
    assert survives(reading(), measured(token_error_rate=0.25)) == ("no", "tokenised again, 25% of its tokens differ")


@pytest.mark.parametrize(
    ("reached", "share", "answer"), [(0.79, 1.0, "no"), (0.55, 1.0, "partly"), (0.79, 0.3, "partly")]
)
def test_waywardness_bounds_belief(reached: float, share: float, answer: str, measured: Build) -> None:
    bound = Waywardness("Count the apples", share, Performance(0.5, reached), Performance(0.9, 0.5))
    found = evidence(measured(0.81, 0.52), bound)
    assert found is not None
    assert found[0] == answer
    assert "'Count the apples'" in found[1]
    assert ("prove nothing" in found[1]) == (answer == "no")


def test_waywardness_by_loss(measured: Build) -> None:
    behaviour = measured(None, None, None, losses=(0.5, 0.9, 1.0))
    as_well = Waywardness("x", 1.0, Performance(0.52), Performance(0.9))
    worse = Waywardness("x", 1.0, Performance(0.8), Performance(0.9))
    assert evidence(behaviour, as_well)[0] == "no"
    assert evidence(behaviour, worse)[0] == "partly"
    assert evidence(None, as_well)[0] == "no"
    assert evidence(behaviour, None) is None


@pytest.mark.parametrize(("rate", "shown"), [(0.001, "<1%"), (0.006, "1%"), (0.999, ">99%"), (1.0, "100%")])
def test_few_errors_are_not_called_none(rate: float, shown: str, reading: Build, measured: Build) -> None:
    words = survives(reading(), measured(token_error_rate=rate))[1]
    assert words == f"tokenised again, {shown} of its tokens differ"


def test_a_prompt_for_each_task_is_not_called_a_prompt_without_vectors() -> None:
    nan = float("nan")
    answer, words = faithful(PromptReading("MULTITASK_PROMPT_TUNING", "", (), False, "start", nan, nan), None)
    assert answer == "no"
    assert "another prompt for each task id, so there is no one text" in words


def test_what_was_asked_for_and_not_tested_is_said() -> None:
    assert evidence(None, None, "no data given") == ("unknown", "asked for but not tested: no data given")
