"""Batches fit a limit, halve it when memory runs out, and nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from peft_interp.scoring.task_scorer import TaskScorer

Build = Callable[..., Any]
LABELS = [5, 9, 7]


def accelerator_error() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def allocator_error() -> None:
    """The CPU allocator's own words."""
    torch.empty(2**60, dtype=torch.uint8)


@contextmanager
def at_most(model: Any, tokens: int, fail: Callable[[], None]) -> Iterator[None]:
    """A model on a device with room for `tokens` in one pass."""

    def check(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if kwargs["input_ids"].numel() > tokens:
            fail()

    hook = model.register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.parametrize("fail", [accelerator_error, allocator_error])
@pytest.mark.parametrize("share", [None, False])
@pytest.mark.parametrize("position", ["start", "end"])
def test_out_of_memory_halves_the_batch(
    language_model: Build, examples: Build, prompts: list[list[int]], position: str, share: Any, fail: Any
) -> None:
    model, rows = language_model("gpt2"), examples()
    expected = TaskScorer(model, rows, LABELS, position).label_log_probs(prompts)
    scorer = TaskScorer(model, rows, LABELS, position, share=share)
    before = scorer.tokens_per_batch
    with at_most(model, 40, fail):
        found = scorer.label_log_probs(prompts)
        assert 20 <= scorer.tokens_per_batch < before
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        remembered = scorer.tokens_per_batch
        torch.testing.assert_close(scorer.label_log_probs(prompts), expected, rtol=1e-5, atol=1e-5)
        assert scorer.tokens_per_batch == remembered


@pytest.mark.parametrize("share", [None, False])
def test_one_pair_that_does_not_fit_is_the_callers_problem(language_model: Build, examples: Build, share: Any) -> None:
    model = language_model("gpt2")
    scorer = TaskScorer(model, examples(), LABELS, "end", share=share)
    with at_most(model, 3, accelerator_error), pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        scorer.label_log_probs([[4, 5, 6, 7]])


def test_other_errors_are_not_taken_for_it(language_model: Build, examples: Build) -> None:
    model = language_model("gpt2")
    scorer = TaskScorer(model, examples(), LABELS, "end")
    tokens = scorer.tokens_per_batch

    def fail() -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with at_most(model, 3, fail), pytest.raises(RuntimeError, match="shapes"):
        scorer.label_log_probs([[4, 5, 6, 7]])
    assert scorer.tokens_per_batch == tokens


@pytest.mark.parametrize("share", [None, False])
@pytest.mark.parametrize("position", ["start", "end"])
def test_passes_stay_within_the_limit_as_prompts_and_examples_grow(
    language_model: Build, examples: Build, passes_of: Build, position: str, share: Any
) -> None:
    model = language_model("gpt2")
    for count, examples_count in ((4, 5), (40, 5), (40, 50)):
        ids = torch.randint(4, 60, (count, 3))
        scorer = TaskScorer(
            model, examples("no", "few", examples_count), LABELS, position, tokens_per_batch=64, share=share
        )
        with passes_of(model) as shapes:
            scorer.label_log_probs(ids)
            scorer.losses(ids)
        assert max(batch * length for batch, length in shapes) <= 64


def test_kept_examples_stay_within_their_budget(language_model: Build, examples: Build, passes_of: Build) -> None:
    """What is not kept is run again, what is kept is not."""
    model, rows, work = language_model("gpt2"), examples("no", "last", 20), {}
    for budget in (0, 20_000, 10**9):
        scorer = TaskScorer(model, rows, LABELS, "end", tokens_per_batch=40, cache_bytes=budget)
        scorer.label_log_probs([[4]])
        with passes_of(model) as shapes:
            scorer.label_log_probs([[5]])
        work[budget] = sum(batch * length for batch, length in shapes)
    texts = sum(len(row["input_ids"]) - 2 for row in rows)  # but the last token and the label
    assert work[10**9] == 20 * 2
    assert work[0] >= 20 * 2 + texts
    kept = (work[0] - work[20_000]) * 2 * 2 * 32 * 4  # keys and values of two layers, 32 wide, fp32
    assert 0 < kept <= 20_000
