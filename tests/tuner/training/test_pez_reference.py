"""Training with Trainer is the PEZ algorithm (arXiv 2302.03668), checked against a direct transcription."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

Build = Callable[..., Any]
STEPS = 5


class Reference:
    """The algorithm box: project, gradient at the projection, applied to the continuous prompt.

    The continuous prompt is measured in units of the table's coordinates, as ours: cosine does not see that, and the
    gradient is that of one unit.

    The loss is `w * fluency + (1 - w) * task`, fluency being the cross-entropy of the projected ids under the task
    model's own logits, as in the reference code.
    """

    def __init__(self, base: Any, start: Tensor, unit: float, weight: float, optimizer: str) -> None:
        self.base, self.weight = base.requires_grad_(False), weight
        self.table = base.get_input_embeddings().weight
        self.latent, self.unit = start.clone(), unit
        self.optimizer = {"sgd": torch.optim.SGD, "adamw_torch": torch.optim.AdamW}[optimizer]([self.latent], lr=0.1)
        self.optimizer.param_groups[0]["weight_decay"] = 0.0

    def nearest(self) -> Tensor:
        similar = cosine_similarity(self.latent[:, None], self.table[None], dim=-1)  # (prompt, vocabulary)
        similar[:, :3] = -1  # pad, BOS, EOS
        return similar.argmax(dim=1)

    def step(self, ids: Tensor, labels: Tensor) -> float:
        chosen = self.nearest()
        hard = self.table[chosen].clone().requires_grad_(True)
        text = self.base.get_input_embeddings()(ids)
        whole = torch.cat((hard.expand(len(ids), -1, -1), text), dim=1)
        logits = self.base(inputs_embeds=whole).logits
        length = len(hard)
        task = cross_entropy(logits[:, length - 1 : -1].flatten(0, 1), labels.flatten())
        fluency = cross_entropy(logits[0, : length - 1], chosen[1:])
        loss = self.weight * fluency + (1 - self.weight) * task
        (gradient,) = torch.autograd.grad(loss, hard)
        self.latent.grad = self.unit * gradient
        self.optimizer.step()
        return loss.item()


@pytest.mark.parametrize("share_prefix", [True, False])
@pytest.mark.parametrize(("optimizer", "weight"), [("sgd", 0.0), ("adamw_torch", 0.0), ("adamw_torch", 0.3)])
def test_latent_ids_and_loss_equal_the_reference(
    optimizer: str,
    weight: float,
    share_prefix: bool,
    gpt2: Build,
    readable: Build,
    learner: Build,
    rows_for: Build,
    latent_of: Build,
) -> None:
    config = {"perplexity_weight": weight, "perplexity_combination": "convex", "perplexity_gradient": "context"}
    model = readable(gpt2(), share_prefix=share_prefix, **config)
    reference = Reference(gpt2(), latent_of(model), model.prompt_encoder["default"].unit, weight, optimizer)
    first_ids = model.prompt_token_ids()
    rows = rows_for("CAUSAL_LM")
    ids, labels = (torch.stack([row[name] for row in rows]) for name in ("input_ids", "labels"))
    losses = [reference.step(ids, labels) for _ in range(STEPS)]
    trainer = learner(model, rows, optim=optimizer, max_steps=STEPS, max_grad_norm=0.0)
    trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    torch.testing.assert_close(torch.tensor(logged), torch.tensor(losses), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(latent_of(model), reference.latent, rtol=1e-5, atol=1e-6)
    assert model.prompt_token_ids() == reference.nearest().tolist()
    if optimizer != "sgd":  # five small steps of SGD stay with the first tokens
        assert model.prompt_token_ids() != first_ids


def test_latent_is_not_overwritten_by_its_projection(
    gpt2: Build, readable: Build, learner: Build, rows_for: Build, latent_of: Build
) -> None:
    """The newest public reference script does overwrite it, which turns PEZ into AutoPrompt-SGD."""
    base = gpt2()
    model = readable(base)
    learner(model, rows_for("CAUSAL_LM"), max_steps=STEPS).train()
    rows = base.get_input_embeddings().weight[model.prompt_token_ids()]
    assert not torch.isclose(model.prompt_encoder["default"].place, rows, atol=1e-3).all(dim=1).any()
    assert torch.equal(model.get_prompt(1)[0], rows)
