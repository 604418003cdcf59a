"""The differentials as pure functions, against their formulas written out."""

from __future__ import annotations

import math

import pytest
import torch

from peft_interp.metrics import differentials as d


def two_sides() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(5, 7) * 3, torch.randn(5, 7) * 3


def test_logit_mse_is_the_mean_square_over_the_vocabulary() -> None:
    first, second = two_sides()
    naive = [sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / 7 for x, y in zip(first, second, strict=True)]
    torch.testing.assert_close(d.logit_mse(first, second), torch.stack(naive))


def test_divergences_are_their_sums() -> None:
    p, q = (x.log_softmax(-1) for x in two_sides())
    m = (p.exp() + q.exp()) / 2
    for i in range(5):
        kl = sum(math.exp(p[i, j]) * (p[i, j] - q[i, j]).item() for j in range(7))
        js = sum((x.exp() * (x.exp() / m[i]).log()).sum().item() / 2 for x in (p[i], q[i]))
        assert d.kl_divergence(p, q)[i].item() == pytest.approx(kl, abs=1e-5)
        assert d.js_divergence(p, q)[i].item() == pytest.approx(js, abs=1e-5)


def test_divergence_of_distributions_without_overlap() -> None:
    """Impossible tokens neither make NaN nor hide."""
    p, q = torch.tensor([[0.0, -torch.inf]]), torch.tensor([[-torch.inf, 0.0]])
    assert d.kl_divergence(p, p).item() == 0
    assert d.kl_divergence(p, q).item() == math.inf
    assert d.js_divergence(p, q).item() == pytest.approx(math.log(2))


def test_equal_sides_have_no_difference() -> None:
    first, _ = two_sides()
    p = first.log_softmax(-1)
    assert d.logit_mse(first, first).eq(0).all()
    assert d.kl_divergence(p, p).eq(0).all()
    assert d.js_divergence(p, p).max() < 1e-6
    assert d.top1_agreement(first, first).all()


def test_kl_does_not_see_a_constant_but_mse_does() -> None:
    first, _ = two_sides()
    shifted = first + 2
    assert d.kl_divergence(first.log_softmax(-1), shifted.log_softmax(-1)).max() < 1e-5
    torch.testing.assert_close(d.logit_mse(first, shifted), torch.full((5,), 4.0))


def test_top1_agreement_compares_the_likeliest_tokens() -> None:
    first, second = torch.tensor([[0.0, 1.0], [3.0, 1.0]]), torch.tensor([[0.0, 9.0], [1.0, 3.0]])
    assert d.top1_agreement(first, second).tolist() == [True, False]


def test_vector_distances() -> None:
    vectors, rows = torch.tensor([[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 0], [1.0, 0]])
    cosine, euclidean = d.vector_distances(vectors, rows)
    torch.testing.assert_close(cosine, torch.tensor([0.0, 1.0, 1.0]))
    torch.testing.assert_close(euclidean, torch.tensor([2.0, 5**0.5, 1.0]))
    same = torch.randn(4, 33)
    assert [x.max().item() for x in d.vector_distances(same, same)] == [0, 0]


@pytest.mark.parametrize(
    ("first", "second", "edits"),
    [
        ([], [], 0),
        ([1, 2, 3], [1, 2, 3], 0),
        ([1, 2, 3], [1, 3], 1),
        ([1], [2], 1),
        ([], [4, 5], 2),
        ([1, 2], [2, 1], 2),
    ],
)
def test_edit_distance(first: list[int], second: list[int], edits: int) -> None:
    assert d.edit_distance(first, second) == edits
    assert d.edit_distance(second, first) == edits


def test_token_error_rate_is_per_token() -> None:
    assert d.token_error_rate([1, 2, 3, 4], [1, 9, 3, 4]) == 0.25
    assert d.token_error_rate([1], [7, 8]) == 2
    assert d.token_error_rate([1, 2, 9], [1, 9], length=2) == 0.5
    assert d.token_error_rate([], []) == 0


def test_common_ends() -> None:
    assert d.common_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert d.common_suffix([9, 2, 3], [1, 1, 2, 3]) == 2
    assert d.common_suffix([2, 3], [1, 2, 3]) == 2
    assert d.common_suffix([], [1]) == 0
