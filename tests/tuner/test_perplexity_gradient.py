"""The gradient of the perplexity term is alive on both sides and is the published one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from peft_interp.tuner.perplexity import prompt_nll, soft_target_gradient, tied_target_gradient
from peft_interp.tuner.projection import straight_through

IDS = torch.tensor([7, 20, 33, 20])


def fluent_prompt_nll(model: Any, rows: Tensor) -> Tensor:
    """FluentPrompt's formula (arXiv 2212.10539) as printed, in fp64, with the rows e_1..e_L as free variables.

    -log p(e_m | e_<m) = -h_{m-1} . e_m + log sum_v exp(h_{m-1} . E_v), averaged over m = 2..L.
    """
    hidden = model.transformer(inputs_embeds=rows.unsqueeze(0)).last_hidden_state[0]
    table = model.get_input_embeddings().weight.detach()
    scores = (hidden[:-1] * rows[1:]).sum(-1) - (hidden[:-1] @ table.T).logsumexp(-1)
    return -scores.mean()


def tied_gradient(model: Any, sides: str) -> Tensor:
    """The package's gradient at the latent for a head tied to the table."""
    table = model.get_input_embeddings().weight.detach()
    latent = (table[IDS] + 0.1).requires_grad_()
    rows = straight_through(latent, table[IDS])
    hidden = model.transformer(inputs_embeds=rows.unsqueeze(0)).last_hidden_state[0]
    target = tied_target_gradient(hidden, rows) if sides != "context" else None
    prompt_nll(model.lm_head(hidden), IDS, sides, target).backward()
    assert latent.grad is not None
    return latent.grad


@pytest.fixture
def model(gpt2: Callable[..., Any]) -> Any:
    return gpt2().requires_grad_(False)


def test_both_sides_together_are_the_published_gradient(model: Any) -> None:
    ours = tied_gradient(model, "both")
    rows = model.get_input_embeddings().weight.detach()[IDS].clone().requires_grad_()
    fluent_prompt_nll(model, rows).backward()
    torch.testing.assert_close(ours, rows.grad, atol=1e-6, rtol=1e-4)


def test_both_sides_agree_with_finite_differences_of_the_formula(model: Any) -> None:
    ours = tied_gradient(model, "both").double()
    model = model.double()
    rows = model.get_input_embeddings().weight.detach()[IDS].clone()
    step = 1e-5
    for place in ((0, 3), (1, 0), (2, 31), (3, 5)):
        ends = []
        for sign in (1, -1):
            moved = rows.clone()
            moved[place] += sign * step
            ends.append(fluent_prompt_nll(model, moved))
        slope = ((ends[0] - ends[1]) / (2 * step)).item()
        assert ours[place].item() == pytest.approx(slope, rel=1e-3, abs=1e-6)


def test_the_two_sides_add_up(model: Any) -> None:
    context, target, both = (tied_gradient(model, sides) for sides in ("context", "target", "both"))
    torch.testing.assert_close(context + target, both, atol=1e-7, rtol=1e-5)


def test_every_token_is_moved_by_the_side_that_can_reach_it(model: Any) -> None:
    context, target = (tied_gradient(model, sides).norm(dim=-1) for sides in ("context", "target"))
    assert (context[:-1] > 1e-4).all()
    assert context[-1] == 0  # the last token predicts nothing
    assert (target[1:] > 1e-4).all()
    assert target[0] == 0  # nothing predicts the first


def test_the_target_side_is_minus_the_state_that_predicts_the_token() -> None:
    hidden = torch.randn(4, 8, requires_grad=True)
    rows = torch.randn(4, 8, requires_grad=True)
    prompt_nll(torch.randn(4, 6), torch.tensor([3, 1, 4, 1]), "both", tied_target_gradient(hidden, rows)).backward()
    assert rows.grad is not None
    torch.testing.assert_close(rows.grad[1:], -hidden.detach()[:-1] / 3)
    assert hidden.grad is None


def test_the_soft_target_has_the_gradient_of_its_formula() -> None:
    logits = torch.randn(4, 6)
    scores = torch.randn(4, 6, requires_grad=True)
    prompt_nll(
        logits, torch.tensor([3, 1, 4, 1]), "target", soft_target_gradient(logits, scores.softmax(-1))
    ).backward()
    plain = scores.detach().clone().requires_grad_()
    loss = sum(-(plain[i].softmax(-1) * logits[i - 1].log_softmax(-1)).sum() for i in (1, 2, 3)) / 3
    loss.backward()
    torch.testing.assert_close(scores.grad, plain.grad)
    assert scores.grad is not None
    assert scores.grad[1:].norm() > 1e-3


def test_the_soft_target_leaves_the_context_side_alone() -> None:
    logits = torch.randn(4, 6, requires_grad=True)
    ids, probs = torch.tensor([3, 1, 4, 1]), torch.rand(4, 6, requires_grad=True)
    prompt_nll(logits, ids, "target", soft_target_gradient(logits, probs)).backward()
    assert logits.grad is None
    prompt_nll(logits, ids, "both", soft_target_gradient(logits, probs)).backward()
    plain = logits.detach().clone().requires_grad_()
    torch.nn.functional.cross_entropy(plain[:-1], ids[1:]).backward()
    torch.testing.assert_close(logits.grad, plain.grad)


@pytest.mark.parametrize("width", [5, 8])
def test_tables_and_heads_may_differ_by_padding_rows(width: int) -> None:
    logits, probs = torch.randn(4, 6), torch.rand(4, width, requires_grad=True)
    soft_target_gradient(logits, probs).sum().backward()
    assert probs.grad is not None
    assert probs.grad[1:, :5].all()
    assert not probs.grad[:, 6:].any()
