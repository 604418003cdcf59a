"""The value of the perplexity term is the cross-entropy that one computes by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from peft_interp.metrics.likelihood import token_nlls
from peft_interp.tuner.perplexity import prompt_nll, soft_target_gradient, text_nll, tied_target_gradient, token_nll

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


def test_text_nll_agrees_with_the_models_own_loss(gpt2: Callable[..., Any]) -> None:
    model, ids = gpt2(), torch.tensor([[5, 9, 33, 12]])
    assert text_nll(model, ids[0]) == pytest.approx(model(ids, labels=ids).loss.item(), rel=1e-5)
    assert text_nll(model, [5, 9, 33, 12]) == text_nll(model, ids[0])


def test_leading_ids_give_context_but_are_not_scored(gpt2: Callable[..., Any]) -> None:
    model, row = gpt2(), torch.tensor([[1, 5, 9, 33]])
    labels = torch.tensor([[-100, -100, 9, 33]])  # the first prompt token is not scored either
    with_bos = text_nll(model, [5, 9, 33], leading_ids=[1])
    assert with_bos == pytest.approx(model(row, labels=labels).loss.item(), rel=1e-5)
    assert with_bos != pytest.approx(text_nll(model, [5, 9, 33]), rel=1e-3)


def test_text_nll_ignores_dropout_and_leaves_the_mode_as_it_was(gpt2: Callable[..., Any]) -> None:
    model = gpt2(embd_pdrop=0.5)
    quiet = text_nll(model, IDS)
    assert not model.training
    model.train()
    assert text_nll(model, IDS) == quiet
    assert model.training


@pytest.mark.parametrize("ids", [[], [4]])
def test_text_nll_of_less_than_two_tokens_is_not_a_number(ids: list[int], gpt2: Callable[..., Any]) -> None:
    assert math.isnan(text_nll(gpt2(), ids))


@pytest.mark.parametrize("ids", ["hi", ["hi"], [[5, 9, 33]], torch.tensor([[5, 9, 33]]), {"input_ids": [5, 9]}])
def test_text_nll_says_that_it_wants_ids(ids: Any, gpt2: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"`ids=.*` must be one list of token ids; it is made by `tokenizer.encode"):
        text_nll(gpt2(), ids)


def test_text_nll_of_an_adapter_is_that_of_its_base_model(gpt2: Callable[..., Any], with_prompt: Any) -> None:
    expected = text_nll(gpt2(), IDS)
    assert text_nll(with_prompt(gpt2()), IDS) == expected


@pytest.mark.parametrize("ids", [[4, 64], [-1, 4]])
def test_ids_the_model_does_not_have_are_named(gpt2: Callable[..., Any], ids: list[int]) -> None:
    for measure in (text_nll, lambda model, prompt: token_nlls(model, [prompt])):
        with pytest.raises(ValueError, match=rf"\[{ids[0]}, {ids[1]}\] do not fit a vocabulary of 64; use those of"):
            measure(gpt2(), ids)
