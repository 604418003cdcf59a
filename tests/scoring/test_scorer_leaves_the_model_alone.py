"""Scoring changes nothing in the model, has no dropout, and its results are ordinary tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from peft_interp.scoring.task_scorer import TaskScorer

Build = Callable[..., Any]
LABELS = [5, 9, 7]


@pytest.mark.parametrize("name", ["gpt2", "roberta"])
def test_modes_weights_and_hooks_are_as_before(language_model: Build, examples: Build, name: str) -> None:
    model = language_model(name).train()
    next(model.children()).eval()
    modes = {key: module.training for key, module in model.named_modules()}
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    scorer = TaskScorer(model, examples(masked=name == "roberta"), LABELS, "end")
    scorer.label_log_probs([[4, 5], [6]])
    scorer.losses([[4, 5], [6]])
    assert {key: module.training for key, module in model.named_modules()} == modes
    assert all(torch.equal(tensor, weights[key]) for key, tensor in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_training_mode_gives_no_dropout(gpt2: Build, examples: Build) -> None:
    model = gpt2(attn_pdrop=0.5, resid_pdrop=0.5, embd_pdrop=0.5)
    scorer = TaskScorer(model, examples(), LABELS, "end", cache_bytes=0)
    expected = scorer.label_log_probs([[4, 5], [6]])
    model.train()
    assert torch.equal(scorer.label_log_probs([[4, 5], [6]]), expected)


def test_modes_come_back_after_an_error(language_model: Build, examples: Build) -> None:
    model = language_model("gpt2").train()
    scorer = TaskScorer(model, examples(), LABELS, "end")

    def fail(*args: Any) -> None:
        raise KeyError("a failing model")

    hook = model.register_forward_pre_hook(fail)
    with pytest.raises(KeyError):
        scorer.losses([[4]])
    hook.remove()
    assert model.training
    assert not model.lm_head._forward_pre_hooks


@pytest.mark.parametrize("share", [None, False])
def test_results_can_take_part_in_a_gradient(language_model: Build, examples: Build, share: Any) -> None:
    scorer = TaskScorer(language_model("gpt2"), examples(), LABELS, "end", share=share)
    found = scorer.label_log_probs([[4], [5]])
    assert not found.requires_grad
    weight = torch.ones(1, requires_grad=True)
    (found * weight).sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, found.sum().view(1))


def test_kept_examples_are_not_written_to(language_model: Build, examples: Build) -> None:
    """The same prompts give the same bits at every call, whatever was scored between."""
    scorer = TaskScorer(language_model("llama"), examples(), LABELS, "end")
    first = scorer.label_log_probs([[4, 5], [6]])
    scorer.losses([[7, 8, 9], [10, 11, 12, 13], [14]])
    assert torch.equal(scorer.label_log_probs([[4, 5], [6]]), first)
