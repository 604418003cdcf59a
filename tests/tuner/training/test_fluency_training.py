"""The perplexity term is alive: it has a gradient on both sides, moves tokens, and makes prompts likelier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import PeftModel

from peft_interp import PromptCallback, text_nll

Build = Callable[..., Any]


@pytest.fixture
def trained(toy_lm: Build, readable: Build, learner: Build, rows_for: Build) -> Build:
    """`trained(weight, steps, **config)`: Trainer after training on the toy language model."""

    def run(weight: float, steps: int = 60, **config: Any) -> Any:
        model = readable(toy_lm(), num_virtual_tokens=6, perplexity_weight=weight, **config)
        rows = rows_for("CAUSAL_LM")
        options = {"callbacks": [PromptCallback()]}
        trainer = learner(model, rows, options, max_steps=steps, learning_rate=0.05)
        trainer.train()
        return trainer

    return run


def nll(model: PeftModel) -> float:
    return text_nll(model.get_base_model(), model.prompt_token_ids())


@pytest.mark.parametrize("sides", ["both", "context", "target"])
def test_gradient_of_the_term(sides: str, toy_lm: Build, readable: Build, rows_for: Build, gpt2: Build) -> None:
    """The gradient at the latent with the term, less that without it: not zero on either side."""
    row = rows_for("CAUSAL_LM", 1)[0]
    batch = {name: value.unsqueeze(0) for name, value in row.items()}
    for scorer in (None, gpt2()):
        gradients = []
        for weight in (0.0, 1.0):
            model = readable(toy_lm(), perplexity_weight=weight, perplexity_gradient=sides).train()
            if scorer is not None:
                model.set_perplexity_model(scorer)
            model(**batch).loss.backward()
            gradients.append(model.prompt_encoder["default"].latent.grad)
        per_token = (gradients[1] - gradients[0]).norm(dim=1)
        first, last = per_token[0] > 1e-3, per_token[-1] > 1e-3
        assert per_token[1:-1].min() > 1e-3
        assert bool(first) == (sides != "target")  # nothing comes before the first token
        assert bool(last) == (sides != "context")  # nothing comes after the last one


@pytest.mark.parametrize("sides", ["both", "target"])
def test_prompt_becomes_likelier_and_tokens_move(sides: str, trained: Build) -> None:
    plain, fluent = trained(0.0), trained(3.0, perplexity_gradient=sides)
    assert nll(fluent.model) < 0.5 * nll(plain.model)
    history = fluent.state.log_history
    assert sum(entry["prompt/changed_share"] for entry in history if "loss" in entry) > 1
    assert history[0]["prompt/perplexity_gradient_norm"] > 0
    assert history[-1]["prompt/prompt_nll"] < history[0]["prompt/prompt_nll"]


def test_a_separate_model_makes_the_prompt_likelier_too(
    bert: Build, toy_lm: Build, readable: Build, learner: Build, rows_for: Build
) -> None:
    prompts = []
    for weight in (0.0, 3.0):
        model = readable(bert(), "SEQ_CLS", num_virtual_tokens=6, perplexity_weight=weight)
        model.set_perplexity_model(toy_lm())
        learner(model, rows_for("SEQ_CLS"), max_steps=40, learning_rate=0.05).train()
        prompts.append(text_nll(toy_lm(), model.prompt_token_ids()))
    assert prompts[1] < 0.8 * prompts[0]


@pytest.mark.parametrize("share_prefix", [True, False])
def test_logged_nll_is_that_of_the_prompt(share_prefix: bool, trained: Build, toy_lm: Build, readable: Build) -> None:
    trainer = trained(1.0, steps=1, share_prefix=share_prefix)
    start = readable(toy_lm(), num_virtual_tokens=6)
    logged = trainer.state.log_history[0]["prompt/prompt_nll"]
    assert logged == pytest.approx(nll(start), abs=1e-5)


@pytest.mark.parametrize("combination", ["additive", "convex"])
def test_evaluation_loss_is_the_task_loss(
    combination: str, toy_lm: Build, readable: Build, learner: Build, rows_for: Build
) -> None:
    rows = rows_for("CAUSAL_LM")
    losses = []
    for weight in (0.0, 1.0):
        model = readable(toy_lm(), perplexity_weight=weight, perplexity_combination=combination)
        losses.append(learner(model, rows).evaluate(rows)["eval_loss"])
    assert losses[0] == losses[1]


def test_term_waits_for_its_start(toy_lm: Build, readable: Build, learner: Build, rows_for: Build) -> None:
    """Until `perplexity_start_step` the run is plain PEZ; then it is not."""
    latents: list[torch.Tensor] = []
    for weight, steps in ((0.0, 4), (1.0, 4), (0.0, 6), (1.0, 6)):
        model = readable(toy_lm(), perplexity_weight=weight, perplexity_start_step=4)
        learner(model, rows_for("CAUSAL_LM"), max_steps=steps, optim="sgd", max_grad_norm=0.0).train()
        latents.append(model.prompt_encoder["default"].latent.detach())
    torch.testing.assert_close(latents[0], latents[1], rtol=0, atol=1e-6)
    assert (latents[2] - latents[3]).norm() > 1e-3
