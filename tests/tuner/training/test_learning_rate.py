"""A learning rate means the same on every model, and one that moves nothing is said at the first step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from peft_interp import continue_training
from peft_interp.tuner.projection import row_terms
from peft_interp.tuner.stalled_search import least_steps

Build = Callable[..., Any]


def scaled(base: Any, factor: float) -> Any:
    """The same function of text with a table `factor` times as large: all that is added to the rows grows as well."""
    with torch.no_grad():
        base.transformer.wte.weight *= factor
        base.transformer.wpe.weight *= factor
        for block in base.transformer.h:
            for layer in (block.attn.c_proj, block.mlp.c_proj):
                layer.weight *= factor
                layer.bias *= factor
    for module in base.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 0.0
    return base


@pytest.mark.parametrize("settings", [{}, {"perplexity_weight": 0.3}, {"projection_metric": "euclidean"}])
def test_scaled_tables_visit_the_same_prompts(
    settings: dict[str, Any], gpt2: Build, readable: Build, learner: Build, rows_for: Build
) -> None:
    """With Trainer's clipping of gradients, which a scale that only undid the step would not survive."""

    seen = {}
    for factor in (1.0, 0.1, 10.0):
        model = readable(scaled(gpt2(tie_word_embeddings=False), factor), **settings)
        prompts = seen[factor] = [model.prompt_token_ids()]
        trainer = learner(model, rows_for("CAUSAL_LM"), max_steps=8, learning_rate=0.2)
        original = trainer.training_step

        def step(*args: Any, original: Any = original, model: Any = model, prompts: Any = prompts, **kw: Any) -> Any:
            loss = original(*args, **kw)
            prompts.append(model.prompt_token_ids())
            return loss

        trainer.training_step = step
        trainer.train()
        prompts.append(model.prompt_token_ids())
    assert len({tuple(prompt) for prompt in seen[1.0]}) > 2
    assert seen[0.1] == seen[1.0] == seen[10.0]


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_least_steps_are_those_that_it_takes(metric: str) -> None:
    """Against walking: in the best of very many directions, some token changes after just so many steps."""
    table = torch.randn(12, 3)
    terms, blocked = row_terms(table, metric), torch.zeros(12, dtype=torch.bool)
    place = table[[4]] * 1.1

    def nearest(x: torch.Tensor) -> torch.Tensor:
        scores = x @ table.T
        if metric == "cosine":
            scores = scores / table.norm(dim=1)
        elif metric == "euclidean":
            scores = scores - 0.5 * table.square().sum(1)
        return scores.argmax(1)

    ids = nearest(place)
    least = least_steps(place, torch.full((1, 3), 0.01), ids, table, metric, terms, blocked)
    directions = torch.nn.functional.normalize(torch.randn(40000, 3), dim=1) * (0.01 * 3**0.5)
    assert not (nearest(place + 0.999 * least * directions) != ids).any()
    assert (nearest(place + 1.02 * least * directions) != ids).any()


def run(learner: Build, model: Any, rows: Any, **arguments: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        learner(model, rows, **arguments).train()
        model.prompt_token_ids()
    return [str(w.message) for w in caught if "learning rate" in str(w.message)]


def test_a_rate_that_moves_nothing_is_said_at_once(
    gpt2: Build, readable: Build, learner: Build, rows_for: Build
) -> None:
    rows = rows_for("CAUSAL_LM")
    (said,) = run(learner, readable(gpt2()), rows, learning_rate=5e-5, max_steps=1)
    assert said.startswith("the learning rate of 5e-05 cannot move the prompt: at least")
    assert "Use 0.1 to 0.3, on every model" in said
    assert not run(learner, readable(gpt2()), rows, learning_rate=0.1, max_steps=1)
    assert not run(learner, readable(gpt2()), rows, learning_rate=5e-5, max_steps=1, optim="sgd")


def test_a_warm_up_is_no_small_rate(gpt2: Build, readable: Build, learner: Build, rows_for: Build) -> None:
    warm = {"lr_scheduler_type": "linear", "warmup_steps": 1000, "learning_rate": 0.1, "max_steps": 3}
    assert not run(learner, readable(gpt2()), rows_for("CAUSAL_LM"), **warm)


def test_a_first_step_without_a_gradient_says_nothing_of_the_rate(
    gpt2: Build, readable: Build, learner: Build, rows_for: Build
) -> None:
    model = readable(gpt2())
    hook = model.prompt_encoder["default"].latent.register_hook(torch.zeros_like)  # a GRPO group of equal rewards
    assert not run(learner, model, rows_for("CAUSAL_LM"), learning_rate=0.1, max_steps=1)
    hook.remove()


def test_adapters_saved_before_there_were_units_load_as_they_were(gpt2: Build, readable: Build, tmp_path: Any) -> None:
    model = readable(gpt2(), off_rows=True)
    place, ids = model.prompt_encoder["default"].place.detach().clone(), model.prompt_token_ids()
    model.save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    assert float(tensors.pop("prompt_latent_unit")) == model.prompt_encoder["default"].unit != 1
    save_file({**tensors, "prompt_latent": place}, file, metadata={"format": "pt"})
    old = continue_training(gpt2(), str(tmp_path))
    assert old.prompt_encoder["default"].unit == 1
    assert torch.equal(old.prompt_encoder["default"].latent, place)
    assert old.prompt_token_ids() == ids
