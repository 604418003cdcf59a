"""Mistakes are named in words when the scorer is built or called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from peft_interp.scoring.task_scorer import TaskScorer

Build = Callable[..., Any]
ROW = {"input_ids": [10, 11, 5], "labels": [-100, -100, 5]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"position": "middle"}, "use one of start, end"),
        ({"tokens_per_batch": 0}, "must be >= 1"),
        ({"rows": []}, "at least one"),
        ({"rows": [ROW, {"input_ids": [10, 11], "labels": [-100, -100]}]}, "row 1 has no label"),
        ({"rows": [{"input_ids": [10, 11], "labels": [11]}]}, "must be equally many"),
        ({"label_token_ids": [5]}, "at least two"),
        ({"label_token_ids": [5, 5]}, "at least two different"),
        ({"label_token_ids": [5, 64]}, "from 0 to 63"),
    ],
)
def test_building(gpt2: Build, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TaskScorer(gpt2(), **{"rows": [ROW], **arguments})


def test_label_words_are_needed_for_their_probabilities(gpt2: Build) -> None:
    scorer = TaskScorer(gpt2(), [ROW])
    assert scorer.losses([[4]]).shape == (1, 1)
    with pytest.raises(ValueError, match="label_token_ids="):
        scorer.label_log_probs([[4]])


@pytest.mark.parametrize("share", [None, False])
def test_prompts_the_model_cannot_take(gpt2: Build, share: Any) -> None:
    scorer = TaskScorer(gpt2(), [ROW], [5, 6], "end", share=share)
    with pytest.raises(ValueError, match=r"do not fit a vocabulary of 64"):
        scorer.label_log_probs([[4, 64, -1]])
    with pytest.raises(ValueError, match="takes 64"):
        scorer.label_log_probs([list(range(4, 63)) + [4] * 4])
    scorer.label_log_probs([list(range(4, 63)) + [4] * 3])  # the label itself is not run


def test_models_that_are_no_language_models(t5: Build, bert: Build, gpt2: Build, with_prompt: Build) -> None:
    for model in (t5(), bert()):
        with pytest.raises(ValueError, match="not a causal or masked"):
            TaskScorer(model, [ROW])
    with pytest.raises(ValueError, match="get_base_model"):
        TaskScorer(with_prompt(gpt2()), [ROW])


def test_models_that_count_positions_from_after_the_padding(language_model: Build) -> None:
    """RoBERTa with 64 rows of positions and padding id 0 takes 63 tokens."""
    scorer = TaskScorer(language_model("roberta"), [{"input_ids": [10, 3, 20], "labels": [-100, 5, -100]}], [5, 6])
    assert scorer.label_log_probs([[4] * 60]).shape == (1, 1, 2)
    with pytest.raises(ValueError, match="is 64 tokens, the model takes 63"):
        scorer.label_log_probs([[4] * 61])
