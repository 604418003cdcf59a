"""Other architectures: exact through shared contexts where they allow it, through plain passes where not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from peft_interp.scoring.task_scorer import TaskScorer

Build = Callable[..., Any]
BOS, MASK, LABELS = 1, 3, [5, 9, 7]


@pytest.mark.parametrize("position", ["start", "end"])
@pytest.mark.parametrize("name", ["opt", "phi", "cohere", "gemma2", "mistral", "bloom"])
def test_causal_models(
    language_model: Build, examples: Build, plain_scores: Build, prompts: list[list[int]], name: str, position: str
) -> None:
    """Heads with a bias, scaled and capped logits; sliding windows and models without position ids."""
    model, rows = language_model(name), examples("all", "few")
    words, losses = plain_scores(model, rows, prompts, position)
    scorer = TaskScorer(model, rows, LABELS, position, [BOS], tokens_per_batch=60)
    torch.testing.assert_close(scorer.label_log_probs(prompts), words, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scorer.losses(prompts), losses, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "shared"), [("opt", True), ("phi", True), ("cohere", True), ("gemma2", False), ("bloom", False)]
)
def test_examples_are_not_run_again_where_the_model_allows_it(
    language_model: Build, examples: Build, passes_of: Build, name: str, shared: bool
) -> None:
    model, rows = language_model(name), examples("no", "last")
    scorer = TaskScorer(model, rows, LABELS, "end")
    assert scorer.shares_contexts == shared
    scorer.label_log_probs([[4]])
    with passes_of(model) as shapes:
        scorer.label_log_probs([[5], [6]])
    tokens = sum(batch * length for batch, length in shapes)
    assert (tokens == 7 * 3) == shared  # per example its last token and two prompts


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_implementations(
    language_model: Build, examples: Build, plain_scores: Build, prompts: list[list[int]], implementation: str
) -> None:
    for name in ("gpt2", "llama"):
        model, rows = language_model(name), examples()
        model.set_attn_implementation(implementation)
        expected, _ = plain_scores(model, rows, prompts, "end")
        found = TaskScorer(model, rows, LABELS, "end").label_log_probs(prompts)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_half_precision(language_model: Build, examples: Build, prompts: list[list[int]]) -> None:
    rows = examples()
    for position in ("start", "end"):
        exact = TaskScorer(language_model("llama"), rows, LABELS, position).label_log_probs(prompts)
        model = language_model("llama").to(torch.bfloat16)
        found = TaskScorer(model, rows, LABELS, position).label_log_probs(prompts)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, exact, rtol=0.05, atol=0.1)


@pytest.mark.parametrize("position", ["start", "end"])
@pytest.mark.parametrize("name", ["roberta", "bert"])
def test_masked_models(
    language_model: Build, plain_scores: Build, prompts: list[list[int]], name: str, position: str
) -> None:
    """`<s> text prompt <mask> . </s>`: the answer is read at the mask itself, and what stands after it counts."""
    model, rows = language_model(name), []
    for length in (3, 6, 4):
        ids = [BOS, *range(10, 10 + length), MASK, 20, 2]
        labels = [-100] * len(ids)
        labels[-3] = LABELS[length % 3]
        rows.append({"input_ids": ids, "labels": labels})
    words, losses = plain_scores(model, rows, prompts, position, shift=0)
    for tokens in (None, 40):
        scorer = TaskScorer(model, rows, LABELS, position, [BOS], tokens_per_batch=tokens)
        torch.testing.assert_close(scorer.label_log_probs(prompts), words, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(scorer.losses(prompts), losses, rtol=1e-5, atol=1e-5)


def test_autocast_of_a_trainer_changes_nothing(
    language_model: Build, examples: Build, prompts: list[list[int]]
) -> None:
    for name in ("gpt2", "llama"):
        scorer = TaskScorer(language_model(name), examples(), LABELS, "end", cache_bytes=0)
        expected = scorer.label_log_probs(prompts)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(scorer.label_log_probs(prompts), expected)
