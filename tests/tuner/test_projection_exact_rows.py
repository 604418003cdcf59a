"""Projected vectors are the table's rows bit for bit, and the gradient passes as if nothing had happened."""

from __future__ import annotations

import pytest
import torch

from peft_interp.tuner.projection import SIMILARITIES, row_terms, similarity, straight_through

FORMATS = (torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("dtype", FORMATS)
def test_rows_come_out_bit_for_bit(dtype: torch.dtype) -> None:
    rows = (torch.randn(200, 32) * 3).to(dtype)
    latent = torch.randn(200, 32, requires_grad=True)
    hard = straight_through(latent, rows)
    assert hard.dtype == dtype
    assert torch.equal(hard, rows)
    with torch.no_grad():  # the usual way is not exact, so the test above can fail
        assert not torch.equal(
            (rows.float() + latent - latent.detach()).to(dtype)
            if dtype == torch.float32
            else rows + latent.to(dtype) - latent.detach().to(dtype),
            rows,
        )


@pytest.mark.parametrize("dtype", FORMATS)
def test_the_gradient_is_handed_through_unchanged(dtype: torch.dtype) -> None:
    latent = torch.randn(5, 8, requires_grad=True)
    incoming = torch.randn(5, 8).to(dtype)
    straight_through(latent, torch.randn(5, 8).to(dtype)).backward(incoming)
    assert latent.grad is not None
    assert latent.grad.dtype == torch.float32
    assert torch.equal(latent.grad, incoming.float())


def test_the_table_gets_no_gradient_and_is_not_aliased() -> None:
    table = torch.randn(5, 8, requires_grad=True)
    hard = straight_through(torch.randn(5, 8, requires_grad=True), table)
    hard.sum().backward()
    assert table.grad is None
    assert hard.data_ptr() != table.data_ptr()


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("metric", SIMILARITIES)
def test_similarity_has_the_gradient_of_its_formula(dtype: torch.dtype, metric: str) -> None:
    table = torch.randn(30, 6).to(dtype)
    latent = torch.randn(4, 6, requires_grad=True)
    weights = torch.randn(4, 30)
    (similarity(latent, table, metric, row_terms(table, metric)) * weights).sum().backward()
    plain = latent.detach().clone().requires_grad_()
    if metric == "cosine":
        scores = torch.nn.functional.cosine_similarity(plain.unsqueeze(1), table.float().unsqueeze(0), dim=-1)
    else:
        scores = plain @ table.float().T if metric == "dot" else -torch.cdist(plain, table.float()).square()
    (scores * weights).sum().backward()
    torch.testing.assert_close(latent.grad, plain.grad, atol=1e-4, rtol=1e-4)
