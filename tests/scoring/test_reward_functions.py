"""Rewards for the text itself, as functions for `reward_funcs`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
import torch

from peft_interp import readability_reward, task_naming_reward
from peft_interp.metrics.readability_judge import find_judge
from peft_interp.metrics.task_naming import measure_task_naming
from peft_interp.scoring.rewards import function_names

DESCRIPTION = "Say whether a film review is positive or negative."
TEXTS = ["Is this film review positive or negative?", "I like you as a babysitter.", "..."]


def by_length(texts: Sequence[str]) -> torch.Tensor:
    """A coarse encoder: how many words of each length, so that every text has a vector of its own."""
    vectors = torch.full((len(texts), 16), 0.1)
    for row, text in zip(vectors, texts, strict=True):
        for word in re.findall(r"\w+", text):
            row[min(len(word), 15)] += 1
    return vectors


def test_task_naming_is_the_measure_capped() -> None:
    reward = task_naming_reward(DESCRIPTION, encoder=by_length, most=0.5)
    found = reward(completions=TEXTS, prompts=[["x"]] * 3, label=[0, 1, 0])
    scores = [measure_task_naming(text, DESCRIPTION, encoder=by_length).score for text in TEXTS]
    assert found[:2] == [pytest.approx(min(score, 0.5)) for score in scores[:2]]
    assert found[2] is None
    assert function_names([reward]) == ["task_naming"]


def test_what_is_wrong_is_said_before_the_search() -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        task_naming_reward(encoder=by_length)
    with pytest.raises(ValueError, match="means the task model"):
        readability_reward("task")


def test_readability_is_the_judges_score() -> None:
    judge = find_judge("embedded")
    assert judge is not None
    found = readability_reward("embedded")(completions=[*TEXTS[:2], "film"])
    assert found == [*(pytest.approx(score) for score in judge.scores(TEXTS[:2])), None]
    assert function_names([readability_reward(judge)]) == ["readability_by_judge"]
