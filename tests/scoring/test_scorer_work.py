"""Shared work is done once, prompts are counted, and the head runs only where an answer is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from peft_interp.scoring.task_scorer import TaskScorer

Build = Callable[..., Any]
LABELS = [5, 9, 7]


def tokens(shapes: list[tuple[int, int]]) -> int:
    return sum(batch * length for batch, length in shapes)


def test_prompts_at_the_end_cost_only_their_own_tokens(
    language_model: Build, examples: Build, passes_of: Build
) -> None:
    model = language_model("gpt2")
    scorer = TaskScorer(model, examples(), LABELS, "end")
    scorer.label_log_probs([[4, 5]])
    with passes_of(model) as shapes:
        scorer.label_log_probs([[10, 11, 12], [20, 21], [10, 11, 13]])
    assert tokens(shapes) == 7 * (1 + 4 + 2)  # per example its last token, and the tree of the prompts


def test_prompts_at_the_start_are_run_once(language_model: Build, examples: Build, passes_of: Build) -> None:
    model, rows = language_model("gpt2"), examples()
    scorer = TaskScorer(model, rows, LABELS, "start")
    with passes_of(model) as shapes:
        scorer.label_log_probs([[10, 11, 12], [20, 21, 22], [10, 11, 13]])
    texts = {tuple(row["input_ids"][:length]) for row in rows for length in range(1, len(row["input_ids"]))}
    assert tokens(shapes) == 3 * (3 + len(texts))  # common beginnings of the texts stand once


def test_a_template_in_front_of_all_texts_is_run_once_per_prompt(language_model: Build, passes_of: Build) -> None:
    model = language_model("gpt2")
    rows = [{"input_ids": [10, 11, 12, 13, n, 5], "labels": [-100] * 5 + [5]} for n in range(20, 28)]
    scorer = TaskScorer(model, rows, LABELS, "start")
    with passes_of(model) as shapes:
        scorer.label_log_probs([[30], [31], [32]])
    assert tokens(shapes) == 3 * (1 + 4 + 8)


@pytest.mark.parametrize("position", ["start", "end"])
def test_pairs_are_counted_and_repeated_prompts_are_free(
    language_model: Build, examples: Build, passes_of: Build, position: str
) -> None:
    model = language_model("gpt2")
    scorer = TaskScorer(model, examples(), LABELS, position)
    assert scorer.forward_passes == 0
    prompts = [[4, 5], [6, 7], [8, 4], [4, 5]]
    found = scorer.label_log_probs(prompts)
    assert scorer.forward_passes == 3 * 7
    assert torch.equal(found[0], found[3])
    scorer.losses(prompts[:1])
    assert scorer.forward_passes == 4 * 7


@pytest.mark.parametrize("name", ["gpt2", "roberta"])
def test_head_does_not_run_for_label_words(language_model: Build, examples: Build, name: str) -> None:
    model, seen = language_model(name), []
    scorer = TaskScorer(model, examples(masked=name == "roberta"), LABELS, "end")
    head = model.get_output_embeddings()
    hook = head.register_forward_hook(lambda module, args, output: seen.append(output.numel()))
    scorer.label_log_probs([[4], [5]])
    assert set(seen) == {0}
    seen.clear()
    scorer.losses([[4], [5]])
    hook.remove()
    assert sum(seen) == 2 * 7 * 64  # one position per pair


def test_capped_logits_come_from_the_whole_head(language_model: Build, examples: Build) -> None:
    """A soft cap after the head changes what its rows give; the head then runs, at the answers only."""
    model, seen = language_model("gemma2"), []
    scorer = TaskScorer(model, examples(), LABELS, "end")
    hook = model.lm_head.register_forward_hook(lambda module, args, output: seen.append(output.numel()))
    scorer.label_log_probs([[4], [5]])
    hook.remove()
    assert sum(seen) == 2 * 7 * 64
