"""Where a pass of the search does not fit into memory, smaller ones give the same."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from peft_interp.inference.batching import Batches, drawing_batches, gradient_batches, reading_batches
from peft_interp.inference.eval_mode import eval_mode
from peft_interp.search import gradient_moves
from peft_interp.search.gradient_moves import swap_gains
from peft_interp.search.language_moves import continue_from
from peft_interp.search.prompt_features import extract_features
from peft_interp.text.placement import placement_named
from peft_interp.text.rows import read_rows

PROMPTS = [[400, 500, 600], [700, 800], [900], [1000, 1100, 1200, 1300], [50, 60, 70, 80, 90]]
ROWS = [
    {"input_ids": [20, 21, 22, 6, 7], "labels": [-100, -100, -100, 6, 7]},
    {"input_ids": [30, 31, 5], "labels": [-100, -100, 5]},
    {"input_ids": [30, 33, 34, 35, 36, 37, 5], "labels": [-100] * 6 + [5]},
]


@contextmanager
def room_for(model: Any, rows: int) -> Iterator[list[int]]:
    """A model that runs out of memory with more rows; yields the sizes of the passes that went through."""
    sizes: list[int] = []

    def check(module: Any, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        table = given["input_ids"] if given.get("input_ids") is not None else given["inputs_embeds"]
        if len(table) > rows:
            raise torch.OutOfMemoryError(f"{len(table)} rows")
        sizes.append(len(table))

    handle = model.register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield sizes
    finally:
        handle.remove()


@pytest.mark.parametrize("keep_logits", [False, True])
def test_readings(language_model: Any, keep_logits: bool) -> None:
    whole = extract_features(language_model, PROMPTS, start_id=0, keep_logits=keep_logits)
    with room_for(language_model, 2) as sizes:
        batches = Batches(sys.maxsize)
        parts = extract_features(language_model, PROMPTS, start_id=0, keep_logits=keep_logits, batches=batches)
        assert 1 <= max(sizes) <= 2
        assert batches.tokens < sys.maxsize
    torch.testing.assert_close(parts.nll, whole.nll, rtol=1e-5, atol=1e-5, equal_nan=True)
    torch.testing.assert_close(parts.features, whole.features, rtol=1e-4, atol=1e-5)
    for found, expected in zip(parts.next_logits, whole.next_logits, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("position", ["start", "end"])
def test_gains(language_model: Any, position: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is a mean over all answers, of which one row has two."""
    rows = read_rows(ROWS, placement=placement_named(position))
    with eval_mode(language_model):
        whole = swap_gains(language_model, [10, 11, 12], rows)
        monkeypatch.setattr(gradient_moves, "_TABLE_ROWS", 1000)
        with room_for(language_model, 1) as sizes:
            parts = swap_gains(language_model, [10, 11, 12], rows)
    assert sizes == [1, 1, 1]
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


def test_gains_need_no_more_logits_than_answers(language_model: Any) -> None:
    positions: list[int] = []
    head = language_model.get_output_embeddings()
    handle = head.register_forward_hook(lambda module, args, output: positions.append(output[..., 0].numel()))
    try:
        with eval_mode(language_model):
            swap_gains(language_model, [10, 11, 12], read_rows(ROWS))
    finally:
        handle.remove()
    assert positions == [4]


def test_continuations(language_model: Any, tokenizer: Any) -> None:
    """Parts have draws of their own; how much fits is remembered."""
    prefixes, batches = [tokenizer.encode("Tell me")] * 8, drawing_batches()
    with room_for(language_model, 4) as sizes:
        drawn = continue_from(language_model, prefixes, 6, [], [], seed=1, batches=batches)
        assert max(sizes) == 4
        assert batches.tokens < sys.maxsize
        assert continue_from(language_model, prefixes, 6, [], [], seed=1, batches=batches) == drawn
    assert all(len(ids) == 6 for ids in drawn)
    assert drawn[:4] != drawn[4:]
    assert drawn[:4] == continue_from(language_model, prefixes[:4], 6, [], [], seed=1)


def test_another_error_is_not_taken_for_memory(language_model: Any) -> None:
    def fail(module: Any, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        raise RuntimeError("something else")

    handle = language_model.register_forward_pre_hook(fail, with_kwargs=True)
    try:
        with pytest.raises(RuntimeError, match="something else"):
            extract_features(language_model, PROMPTS)
    finally:
        handle.remove()


@pytest.mark.parametrize("made", [reading_batches, gradient_batches])
def test_what_fits_follows_the_free_memory(
    language_model: Any, made: Callable[[Any], Batches], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for free in (0, 10**9, 10**10):
        monkeypatch.setattr("peft_interp.inference.batching.available_bytes", lambda device, free=free: free)
        found.append(made(language_model).tokens)
    assert found[0] == 64
    assert found[2] == pytest.approx(10 * found[1], rel=1e-3)
