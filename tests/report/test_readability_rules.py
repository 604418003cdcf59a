"""Whether a person can read a text, and what to know before taking its scores as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from peft_interp.metrics.results import Flag, Measure
from peft_interp.report.verdicts import QUESTIONS, decide, readable, trust

Build = Callable[..., Any]
REPEATS = Flag("repetition", "3 of 8 tokens repeat 'magazine'")


def test_readable_text_stands_beside_what_people_wrote(reading: Build, judged: Build) -> None:
    assert readable(reading(), judged()) == (
        "yes",
        "at least as fluent as 62 of 100 prompts that people wrote (score 0.70 of 1)",
    )


def test_a_flag_decides_whatever_the_score(reading: Build, judged: Build) -> None:
    assert readable(reading(), judged(False, 0.9, 99.0, [REPEATS])) == ("no", "3 of 8 tokens repeat 'magazine'")


def test_a_low_score_is_no(reading: Build, judged: Build) -> None:
    answer, words = readable(reading(), judged(False, 0.12, 1.0, perplexity=Measure(1979.0, 45.0)))
    assert answer == "no"
    assert "score 0.12 of 1" in words
    assert "perplexity 1,979 (prompts people wrote: 45)" in words


@pytest.mark.parametrize(("percentile", "answer"), [(4.0, "partly"), (30.0, "yes"), (None, "yes")])
def test_less_fluent_than_nearly_all_is_partly(
    percentile: float | None, answer: str, reading: Build, judged: Build
) -> None:
    assert readable(reading(), judged(True, 0.6, percentile))[0] == answer


def test_a_readable_text_of_a_soft_prompt_is_not_the_prompt(reading: Build, judged: Build) -> None:
    assert readable(reading(distance=0.9), judged())[1].startswith("its nearest tokens: ")


def test_no_text_cannot_be_read(reading: Build, judged: Build) -> None:
    assert readable(reading(()), None)[0] == "unknown"


def test_remarks_are_warnings_and_blocking_flags_are_not_repeated(judged: Build) -> None:
    leak = Flag("label_leak", "holds the label word 'great'", unreadable=False)
    assert trust(judged(flags=[leak, REPEATS])) == ("partly", "holds the label word 'great'")
    assert trust(judged(flags=[REPEATS])) is None
    assert trust(None) is None


def test_questions_come_in_order_and_only_where_they_arise(reading: Build, judged: Build, measured: Build) -> None:
    found = [verdict.question for verdict in decide(reading(), judged(), measured())]
    assert found == ["faithful", "survives", "readable", "acts"]
    assert set(found) < set(QUESTIONS)
    without_data = {verdict.question: verdict.answer for verdict in decide(reading(distance=0.9), judged())}
    assert without_data == {"faithful": "unknown", "near": "no", "readable": "yes", "acts": "unknown"}
    assert str(decide(reading(), judged())[1]).startswith("readable: yes, at least as fluent as 62 of 100")


def test_a_text_that_no_language_model_judged_is_not_called_missing(reading: Build) -> None:
    answer, words = readable(reading(), None)
    assert answer == "unknown"
    assert words.startswith("no causal language model judged it")
    assert "`perplexity_model=`" in words
    assert "`--perplexity-model`" in words
