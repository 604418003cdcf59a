"""The nearest allowed row is the one that a search by hand finds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from peft_interp.tuner import projection
from peft_interp.tuner.projection import SIMILARITIES, check_finite, equal_rows, nearest_rows, row_terms, similarity

HALVES = (torch.float16, torch.bfloat16)


def by_hand(latent: Tensor, row: Tensor, metric: str) -> float:
    first, second = latent.double(), row.double()
    if metric == "cosine":
        return float(first @ second / first.norm() / second.norm())
    return float(first @ second) if metric == "dot" else -float((first - second).square().sum())


def nearest(latent: Tensor, table: Tensor, metric: str, allowed: Tensor | None = None) -> list[int]:
    terms = row_terms(table, metric)
    blocked = torch.zeros(len(table), dtype=torch.bool) if allowed is None else ~allowed
    if metric == "cosine":
        blocked = blocked | (terms == 0)
    return nearest_rows(latent, table, metric, terms, blocked, equal_rows(table, blocked)).tolist()


@pytest.mark.parametrize("metric", SIMILARITIES)
def test_similarity_is_what_its_name_says(metric: str) -> None:
    latent, table = torch.randn(3, 8), torch.randn(20, 8)
    scores = similarity(latent, table, metric, row_terms(table, metric))
    wanted = torch.tensor([[by_hand(vector, row, metric) for row in table] for vector in latent])
    torch.testing.assert_close(scores, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("metric", SIMILARITIES)
def test_the_chosen_row_is_the_best_of_all(metric: str) -> None:
    latent, table = torch.randn(10, 8), torch.randn(200, 8)
    wanted = [max(range(200), key=lambda i: by_hand(vector, table[i], metric)) for vector in latent]
    assert nearest(latent, table, metric) == wanted


def test_the_metrics_disagree_where_lengths_matter() -> None:
    table = torch.tensor([[1.0, 0.1], [9.0, 5.0], [2.2, 0.8]])
    latent = torch.tensor([[2.0, 0.2]])
    assert [nearest(latent, table, metric) for metric in ("cosine", "dot", "euclidean")] == [[0], [1], [2]]


@pytest.mark.parametrize("metric", SIMILARITIES)
def test_a_forbidden_row_is_never_chosen(metric: str) -> None:
    table = torch.randn(50, 8)
    latent = table[:10] * 1.01
    allowed = torch.arange(50) >= 10
    chosen = nearest(latent, table, metric, allowed)
    assert min(chosen) >= 10
    assert chosen == [10 + i for i in nearest(latent, table[10:], metric)]


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_a_zero_row_never_wins_by_cosine(dtype: torch.dtype) -> None:
    table = torch.tensor([[0.0, 0.0], [-1.0, -1.0], [0.0, 0.0]], dtype=dtype)
    latent = torch.tensor([[1.0, 1.0], [0.0, 0.0]])  # every real row points away from the first, the second is zero
    assert nearest(latent, table, "cosine") == [1, 1]
    assert torch.isfinite(similarity(latent, table, "cosine", row_terms(table, "cosine"))).all()


def test_a_latent_that_is_no_number_is_an_error_that_says_what_to_do() -> None:
    check_finite(True)
    with pytest.raises(FloatingPointError, match=r"NaN or infinity.*lower the learning rate.*max_grad_norm"):
        check_finite(False)


def test_an_unknown_metric_is_named() -> None:
    with pytest.raises(ValueError, match=r"'manhattan'.*cosine, dot, euclidean"):
        row_terms(torch.randn(3, 2), "manhattan")


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("metric", SIMILARITIES)
def test_slices_of_a_half_precision_table_give_what_the_whole_gives(
    dtype: torch.dtype, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, latent = torch.randn(103, 16).to(dtype), torch.randn(6, 16)
    whole = similarity(latent, table.float(), metric, row_terms(table.float(), metric))
    monkeypatch.setattr(projection, "_CHUNK_BYTES", 4 * 16 * 10)  # 10 rows at a time, 3 in the last slice
    sliced = similarity(latent, table, metric, row_terms(table, metric))
    torch.testing.assert_close(sliced, whole, atol=1e-5, rtol=1e-5)
    assert nearest(latent, table, metric) == whole.argmax(-1).tolist()


@pytest.mark.parametrize("metric", SIMILARITIES)
def test_mixed_precision_does_not_change_the_choice(metric: str) -> None:
    table = torch.randn(1, 32) + 0.05 * torch.randn(500, 32)  # rows as close to each other as real tables have them
    latent = table[:100].clone()
    wanted = nearest(latent, table, metric)
    with torch.autocast("cpu", torch.bfloat16):
        assert nearest(latent, table, metric) == wanted


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_equal_rows_the_lowest_id_wins_in_spite_of_rounding(metric: str, dtype: torch.dtype) -> None:
    for seed in range(150):  # products of equal rows differ in a few percent of these shapes
        generator = torch.Generator().manual_seed(seed)
        rows, dim = (int(torch.randint(low, 130, (), generator=generator)) for low in (6, 50))
        table = torch.randn(rows, dim, generator=generator).to(dtype)
        table[-1] = table[1]
        assert nearest(table[1:2].float(), table, metric) == [1], f"seed {seed}"


def test_of_equal_rows_a_forbidden_one_gives_way_to_its_twin() -> None:
    table = torch.randn(8, 4)
    table[6] = table[2]
    assert nearest(table[2:3], table, "cosine", torch.arange(8) != 2) == [6]
