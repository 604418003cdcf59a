"""The projection never makes or keeps a second copy of the table."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from peft_interp.tuner import projection
from peft_interp.tuner.projection import SIMILARITIES, nearest_rows, row_terms, similarity

ROWS, DIM, PROMPT = 4096, 256, 4


def largest_allocation(function: Callable[[], object]) -> int:
    """Bytes of the largest single allocation while `function` runs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, record_shapes=False) as record:
        function()
    return max(event.self_cpu_memory_usage for event in record.events())


@pytest.mark.parametrize("metric", SIMILARITIES)
def test_an_fp32_table_is_read_in_place(metric: str) -> None:
    table, latent = torch.randn(ROWS, DIM), torch.randn(PROMPT, DIM)
    terms = row_terms(table, metric)
    used = largest_allocation(lambda: nearest_rows(latent, table, metric, terms, None))
    assert used < table.nbytes / 10
    assert largest_allocation(lambda: table.clone()) >= table.nbytes  # the measure does see a copy


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_row_terms_are_made_slice_by_slice(
    dtype: torch.dtype, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = torch.randn(ROWS, DIM).to(dtype)
    budget = 4 * DIM * 128
    monkeypatch.setattr(projection, "_CHUNK_BYTES", budget)
    assert largest_allocation(lambda: row_terms(table, metric)) <= budget


def test_a_half_precision_table_is_cast_slice_by_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    table, latent = torch.randn(ROWS, DIM).to(torch.bfloat16), torch.randn(PROMPT, DIM)
    budget = 4 * DIM * 128
    monkeypatch.setattr(projection, "_CHUNK_BYTES", budget)
    terms = row_terms(table, "cosine")
    assert largest_allocation(lambda: nearest_rows(latent, table, "cosine", terms, None)) <= budget


def test_the_gradient_keeps_no_cast_of_a_half_precision_table() -> None:
    table = torch.randn(ROWS, DIM).to(torch.bfloat16)
    latent = torch.randn(PROMPT, DIM, requires_grad=True)
    kept: dict[int, Tensor] = {}

    def remember(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor
        return tensor

    terms = row_terms(table, "cosine")
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        similarity(latent, table, "cosine", terms)
    kept.pop(table.data_ptr())
    assert sum(tensor.nbytes for tensor in kept.values()) < table.nbytes / 10
