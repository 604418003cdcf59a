"""How the perplexity term joins the task loss, and which scorers are accepted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import BertForMaskedLM, GPT2Model

from peft_interp.tuner.config import InterpPromptConfig
from peft_interp.tuner.fluency import batch_share, check_scorer, join_losses
from peft_interp.tuner.loss_terms import PERPLEXITY

TASK, NLL = torch.tensor(2.0), torch.tensor(5.0)


@pytest.mark.parametrize(("combination", "wanted"), [("additive", 2 + 0.4 * 5), ("convex", 0.6 * 2 + 0.4 * 5)])
def test_the_two_ways_of_joining(combination: str, wanted: float) -> None:
    config = InterpPromptConfig(perplexity_weight=0.4, perplexity_combination=combination)
    assert join_losses(config, 0, TASK, {PERPLEXITY: NLL}, 1.0).item() == pytest.approx(wanted)


@pytest.mark.parametrize("combination", ["additive", "convex"])
def test_before_its_start_the_term_changes_nothing(combination: str) -> None:
    config = InterpPromptConfig(perplexity_weight=0.4, perplexity_combination=combination, perplexity_start_step=3)
    assert join_losses(config, 2, TASK, {PERPLEXITY: NLL}, 1.0).item() == 2.0
    assert join_losses(config, 3, TASK, {PERPLEXITY: NLL}, 1.0).item() != 2.0


@pytest.mark.parametrize("combination", ["additive", "convex"])
def test_micro_batches_add_up_to_the_whole_batch(combination: str) -> None:
    """Labels are spread unevenly; the term must count once, not once per micro-batch."""
    config = InterpPromptConfig(perplexity_weight=0.4, perplexity_combination=combination)
    labels = torch.tensor([[-100, 4, 5], [-100, -100, 6], [7, 8, 9]])
    items = int(labels.ne(-100).sum())
    losses = torch.tensor([1.5, 4.0, 0.5])
    whole = join_losses(config, 0, losses.sum(), {PERPLEXITY: NLL}, batch_share(labels, items))
    parts = [
        join_losses(config, 0, loss, {PERPLEXITY: NLL}, batch_share(row.unsqueeze(0), items))
        for loss, row in zip(losses, labels, strict=True)
    ]
    torch.testing.assert_close(torch.stack(parts).sum(), whole)


def test_the_gradient_of_the_term_is_its_weight() -> None:
    nll = NLL.clone().requires_grad_()
    config = InterpPromptConfig(perplexity_weight=0.4, perplexity_warmup_steps=1)
    join_losses(config, 0, TASK, {PERPLEXITY: nll}, 0.5).backward()
    assert nll.grad is not None
    assert nll.grad.item() == pytest.approx(0.4 * 0.5 * 0.5)


def test_the_share_is_one_where_the_whole_is_unknown() -> None:
    labels = torch.tensor([[1, -100]])
    assert batch_share(None, 4) == 1.0
    assert batch_share(labels, None) == 1.0
    assert float(batch_share(labels, torch.tensor(4))) == 0.25
    assert float(batch_share(torch.full((2, 2), -100), 0)) == 0.0


def test_a_causal_language_model_of_about_the_same_vocabulary_is_accepted(gpt2: Callable[..., Any]) -> None:
    check_scorer(gpt2(), torch.zeros(64, 8))
    check_scorer(gpt2(vocab_size=70), torch.zeros(64, 8))  # padding rows


def test_models_that_predict_no_next_token_are_refused(
    gpt2: Callable[..., Any], bert: Callable[..., Any], t5: Callable[..., Any]
) -> None:
    for scorer in (gpt2(GPT2Model), t5(), bert(BertForMaskedLM)):
        name = type(scorer).__name__
        with pytest.raises(ValueError, match=rf"{name} has no causal language-model head; use an AutoModelForCausalLM"):
            check_scorer(scorer, torch.zeros(64, 8))


def test_a_scorer_with_another_vocabulary_is_refused(gpt2: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"knows 80 tokens, the task model 64.*Use a causal LM of the same family"):
        check_scorer(gpt2(vocab_size=80), torch.zeros(64, 8))
