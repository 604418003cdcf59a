"""The value of the perplexity term is the cross-entropy that one computes by hand."""

from __future__ import annotations

import math

import pytest
import torch

from peft_interp.tuner.perplexity import prompt_nll, soft_target_gradient, tied_target_gradient, token_nll

IDS = torch.tensor([3, 1, 4, 1])


def by_hand(logits: torch.Tensor, ids: list[int]) -> list[float]:
    rows = logits.double().tolist()
    return [
        math.log(sum(math.exp(x) for x in rows[i - 1])) - rows[i - 1][ids[i]] for i in range(1, len(ids))
    ]  # token i is predicted by row i - 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_token_nll_is_the_cross_entropy_by_hand(dtype: torch.dtype) -> None:
    logits = torch.randn(4, 6).to(dtype)
    nll = token_nll(logits, IDS)
    assert nll.dtype == torch.float32
    torch.testing.assert_close(nll, torch.tensor(by_hand(logits, IDS.tolist())))


@pytest.mark.parametrize("sides", ["context", "target", "both"])
def test_the_sides_do_not_change_the_value(sides: str) -> None:
    logits, hidden, rows = torch.randn(4, 6), torch.randn(4, 8), torch.randn(4, 8)
    wanted = sum(by_hand(logits, IDS.tolist())) / 3
    for target in (tied_target_gradient(hidden, rows), soft_target_gradient(logits, torch.rand(4, 6))):
        value = prompt_nll(logits, IDS, sides, None if sides == "context" else target)
        assert value.item() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_target_terms_are_exactly_zero(dtype: torch.dtype) -> None:
    hidden = (100 * torch.randn(5, 64)).to(dtype)
    rows = torch.randn(5, 64, requires_grad=True)
    assert tied_target_gradient(hidden, rows).tolist() == [0.0] * 4
    probs = torch.randn(5, 50, requires_grad=True).softmax(-1)
    assert soft_target_gradient((10 * torch.randn(5, 50)).to(dtype), probs).tolist() == [0.0] * 4


@pytest.mark.parametrize("sides", ["context", "target", "both"])
def test_a_prompt_of_one_token_costs_nothing_and_can_be_differentiated(sides: str) -> None:
    logits = torch.full((1, 50_000), -30.0, dtype=torch.float16, requires_grad=True)  # their sum overflows
    nll = prompt_nll(logits, torch.tensor([7]), sides, None)
    nll.backward()
    assert nll.item() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_a_uniform_model_costs_the_logarithm_of_the_vocabulary() -> None:
    nll = prompt_nll(torch.zeros(4, 6), IDS, "context", None)
    assert nll.item() == pytest.approx(math.log(6))
