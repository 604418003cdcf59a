"""Scores with shared contexts are those of plain forward passes of single, unpadded rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from peft_interp.scoring.task_scorer import TaskScorer

Build = Callable[..., Any]
BOS, LABELS = 1, [5, 9, 7]
BUDGETS = {
    "ample": {},
    "small batches": {"tokens_per_batch": 30},
    "no examples kept": {"cache_bytes": 0},
    "some examples kept": {"tokens_per_batch": 30, "cache_bytes": 3000},
    "nothing shared": {"share": False, "tokens_per_batch": 50},
}


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bos", ["no", "all", "some"])
@pytest.mark.parametrize("position", ["start", "end"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_label_words_under_every_budget(
    language_model: Build,
    examples: Build,
    plain_scores: Build,
    prompts: list[list[int]],
    name: str,
    position: str,
    bos: str,
) -> None:
    model, rows = language_model(name), examples(bos)
    expected, _ = plain_scores(model, rows, prompts, position)
    for budget in BUDGETS.values():
        scorer = TaskScorer(model, rows, LABELS, position, [BOS], **budget)
        close(scorer.label_log_probs(prompts), expected)
        close(scorer.label_log_probs(prompts[::-1]), expected.flip(0))  # after what is kept


@pytest.mark.parametrize("labelled", ["last", "few", "all"])
@pytest.mark.parametrize("position", ["start", "end"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_losses_under_every_budget(
    language_model: Build,
    examples: Build,
    plain_scores: Build,
    prompts: list[list[int]],
    name: str,
    position: str,
    labelled: str,
) -> None:
    for bos in ("no", "some"):
        model, rows = language_model(name), examples(bos, labelled)
        words, losses = plain_scores(model, rows, prompts[1:], position)
        for budget in BUDGETS.values():
            scorer = TaskScorer(model, rows, LABELS, position, [BOS], **budget)
            close(scorer.losses(prompts[1:]), losses)
            close(scorer.label_log_probs(prompts[1:]), words)


@pytest.mark.parametrize("position", ["start", "end"])
def test_prompts_of_one_length_may_be_a_tensor(language_model: Build, examples: Build, position: str) -> None:
    scorer = TaskScorer(language_model("llama"), examples(), LABELS, position)
    ids = torch.randint(4, 60, (6, 3))
    found = scorer.label_log_probs(ids)
    assert found.shape == (6, 7, 3)
    assert found.dtype == torch.float32
    close(found, scorer.label_log_probs(ids.tolist()))
    close(found.exp().sum(-1), torch.ones(6, 7))


@pytest.mark.parametrize("position", ["start", "end"])
def test_padding_in_the_rows_is_dropped(language_model: Build, examples: Build, position: str) -> None:
    model, rows, prompts = language_model("gpt2"), examples("all"), [[4, 5], [6], [4, 7]]
    padded = [
        {
            "input_ids": [0, 0, *row["input_ids"], 0],
            "labels": [-100, -100, *row["labels"], -100],
            "attention_mask": [0, 0, *[1] * len(row["input_ids"]), 0],
        }
        for row in rows
    ]
    plain, found = (TaskScorer(model, r, LABELS, position, [BOS]).label_log_probs(prompts) for r in (rows, padded))
    close(found, plain)


@pytest.mark.parametrize("count", [1, 2])
def test_few_prompts(language_model: Build, examples: Build, plain_scores: Build, count: int) -> None:
    model, rows, prompts = language_model("gpt2"), examples(), [[4, 5, 6], [7]][:count]
    for position in ("start", "end"):
        expected, _ = plain_scores(model, rows, prompts, position)
        close(TaskScorer(model, rows, LABELS, position).label_log_probs(prompts), expected)


def test_no_prompts(language_model: Build, examples: Build) -> None:
    scorer = TaskScorer(language_model("gpt2"), examples(), LABELS, "end")
    assert scorer.label_log_probs([]).shape == (0, 7, 3)
    assert scorer.losses([]).shape == (0, 7)
