"""Arguments of Trainer and trouble in the data: each works, or is refused in words before it does damage."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from peft_interp import PromptCallback
from tests.builders import CHECKPOINTING

Build = Callable[..., Any]


def shifted_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None) -> torch.Tensor:
    """The usual `compute_loss_func`: logits and labels are taken to have one length."""
    logits, targets = outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / num_items_in_batch


@pytest.mark.parametrize("name", ["CAUSAL_LM", "CAUSAL_LM/llama"])
@pytest.mark.parametrize("align", [False, True])
def test_label_smoothing_is_refused(
    name: str, align: bool, base_for: Build, readable: Build, learner: Build, rows_for: Build, latent_of: Build
) -> None:
    """Stock crashes; with aligned logits a Llama would silently learn to predict the token it has just read."""
    model = readable(base_for(name), align_logits_with_labels=align)
    before = latent_of(model)
    options = {"callbacks": [PromptCallback()]} if align else {}
    trainer = learner(model, rows_for(name), options, label_smoothing_factor=0.1)
    with pytest.raises(ValueError, match="label_smoothing_factor"):
        trainer.train()
    assert torch.equal(latent_of(model), before)


def test_label_smoothing_does_not_lose_the_perplexity_term(
    base_for: Build, readable: Build, learner: Build, rows_for: Build, gpt2: Build
) -> None:
    """A classifier's loss would come from Trainer then, and the term would vanish unnoticed."""
    model = readable(base_for("SEQ_CLS"), "SEQ_CLS", perplexity_weight=0.1)
    model.set_perplexity_model(gpt2())
    with pytest.raises(ValueError, match="perplexity_weight=0"):
        learner(model, rows_for("SEQ_CLS"), label_smoothing_factor=0.1).train()


@pytest.mark.parametrize(
    "config", [{}, {"perplexity_weight": 0.5}, {"perplexity_weight": 0.5, "perplexity_combination": "convex"}]
)
def test_own_loss_function_equals_the_models_own(
    config: dict[str, Any], gpt2: Build, readable: Build, learner: Build, rows_for: Build, latent_of: Build
) -> None:
    """A term of the loss counts too, which the function does not know of."""
    rows = rows_for("CAUSAL_LM")
    own, builtin = (readable(gpt2(), align_logits_with_labels=True, **config) for _ in range(2))
    plain = {"optim": "sgd", "max_grad_norm": 0.0}
    learner(own, rows, {"compute_loss_func": shifted_loss}, **plain).train()
    learner(builtin, rows, **plain).train()
    torch.testing.assert_close(latent_of(own), latent_of(builtin), rtol=0, atol=1e-6)


def test_own_loss_function_is_refused_where_it_cannot_work(
    gpt2: Build, readable: Build, learner: Build, rows_for: Build
) -> None:
    trainer = learner(readable(gpt2()), rows_for("CAUSAL_LM"), {"compute_loss_func": shifted_loss})
    with pytest.raises(ValueError, match="align_logits_with_labels=True"):
        trainer.train()


@pytest.mark.parametrize("share_prefix", [True, False])
def test_neftune_disturbs_the_text_but_not_the_prompt(
    share_prefix: bool, llama: Build, readable: Build, learner: Build, rows_for: Build
) -> None:
    """Noise on the prompt would make it something else than its tokens."""
    base = llama()
    model = readable(base, share_prefix=share_prefix)
    seen: list[torch.Tensor] = []
    base.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs.get("inputs_embeds")), with_kwargs=True
    )
    result = learner(model, rows_for("CAUSAL_LM"), neftune_noise_alpha=5.0, max_steps=1).train()
    assert result.global_step == 1
    seen = [embeds for embeds in seen if embeds is not None]  # the trial of the step's ways gives ids
    prompt, table = seen[0][0, :4], base.get_input_embeddings().weight
    assert all((row == table).all(dim=1).any() for row in prompt)
    if not share_prefix:
        assert not any((row == table).all(dim=1).any() for row in seen[0][0, 4:])


def test_a_loss_that_is_not_finite_stops_before_the_latent(
    gpt2: Build, readable: Build, learner: Build, rows_for: Build, latent_of: Build
) -> None:
    base = gpt2()
    model = readable(base)
    before = latent_of(model)
    base.transformer.ln_f.bias.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="save it if you like"):
        learner(model, rows_for("CAUSAL_LM")).train()
    assert torch.equal(latent_of(model), before)


@pytest.mark.parametrize("share_prefix", [True, False])
def test_labels_that_are_all_ignored(
    share_prefix: bool, gpt2: Build, readable: Build, learner: Build, rows_for: Build, latent_of: Build
) -> None:
    """A whole update without a label is refused; a micro-batch without one adds nothing to the others."""
    model = readable(gpt2(), share_prefix=share_prefix)
    before = latent_of(model)
    rows = rows_for("CAUSAL_LM", 4)
    empty = [{**row, "labels": torch.full_like(row["labels"], -100)} for row in rows]
    with pytest.raises(FloatingPointError, match="all -100"):
        learner(model, empty).train()
    assert torch.equal(latent_of(model), before)
    latents = []
    for batches in ({"per_device_train_batch_size": 8}, {"gradient_accumulation_steps": 8}):
        mixed = readable(gpt2(), share_prefix=share_prefix)
        plain = {"optim": "sgd", "max_grad_norm": 0.0, "max_steps": 1, "per_device_train_batch_size": 1}
        learner(mixed, rows + empty, **{**plain, **batches}).train()
        latents.append(latent_of(mixed))
    torch.testing.assert_close(latents[0], latents[1], rtol=0, atol=1e-6)


def test_a_learning_rate_that_moves_nothing_warns_early(
    gpt2: Build, readable: Build, learner: Build, rows_for: Build
) -> None:
    model = readable(gpt2())
    trainer = learner(model, rows_for("CAUSAL_LM"), max_steps=1, learning_rate=5e-5)
    with pytest.warns(UserWarning, match=r"learning rate of 5e-05 cannot move the prompt: .* Use 0.1 to 0.3"):
        trainer.train()


def test_a_search_that_cannot_move_warns_exactly_once(
    gpt2: Build, readable: Build, learner: Build, rows_for: Build
) -> None:
    model = readable(gpt2(), stuck_patience=3)
    rows = rows_for("CAUSAL_LM")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = learner(model, rows, max_steps=10, learning_rate=1e-5)
        trainer.train()
    told = [str(w.message) for w in caught if "stuck" in str(w.message) or "cannot move the prompt" in str(w.message)]
    assert len(told) == 1
    assert "the learning rate of 1e-05 cannot move the prompt" in told[0]


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "rmsprop"])
def test_every_optimizer_is_seen(
    optim: str, gpt2: Build, readable: Build, learner: Build, rows_for: Build, latent_of: Build
) -> None:
    """Fused kernels may change a parameter without raising its version: the projection must notice all the same."""
    base = gpt2()
    model = readable(base)
    learner(model, rows_for("CAUSAL_LM"), optim=optim, learning_rate=0.3).train()
    table = base.get_input_embeddings().weight[3:]
    latent = latent_of(model)
    nearest = torch.nn.functional.cosine_similarity(latent[:, None], table[None], dim=-1).argmax(dim=1) + 3
    assert model.prompt_token_ids() == nearest.tolist()
    assert model.prompt_statistics()["step"] == 5


@pytest.mark.parametrize("name", ["CAUSAL_LM", "CAUSAL_LM/llama"])
def test_bf16(name: str, base_for: Build, readable: Build, learner: Build, rows_for: Build, latent_of: Build) -> None:
    """Autocast leaves latent and table alone: fp32, and the prompt is made of the table's exact rows."""
    base = base_for(name)
    model = readable(base, perplexity_weight=0.1)
    start = latent_of(model)
    trainer = learner(model, rows_for(name), bf16=True)
    trainer.train()
    assert not torch.equal(latent_of(model), start)
    assert latent_of(model).dtype == torch.float32
    assert torch.equal(model.get_prompt(1)[0], base.get_input_embeddings().weight[model.prompt_token_ids()])
    assert trainer.evaluate(rows_for(name))["eval_loss"] > 0


@pytest.mark.parametrize(
    ("name", "reentrant"),
    [
        *[("CAUSAL_LM", True), ("CAUSAL_LM", False), ("CAUSAL_LM/llama", False)],
        *[("SEQ_CLS", True), ("SEQ_2_SEQ_LM", False)],
    ],
)
def test_gradient_checkpointing_changes_nothing(
    name: str,
    reentrant: bool,
    base_for: Build,
    readable: Build,
    learner: Build,
    rows_for: Build,
    latent_of: Build,
    gpt2: Build,
) -> None:
    latents = []
    name_of = f"{CHECKPOINTING}_checkpointing"
    saving = {name_of: True, f"{name_of}_kwargs": {"use_reentrant": reentrant}}
    for arguments in ({}, saving):
        model = readable(base_for(name), name.partition("/")[0], perplexity_weight=0.2)
        if not name.startswith("CAUSAL_LM"):
            model.set_perplexity_model(gpt2())
        learner(model, rows_for(name), optim="sgd", max_grad_norm=0.0, max_steps=2, **arguments).train()
        latents.append(latent_of(model))
    torch.testing.assert_close(latents[0], latents[1], rtol=0, atol=1e-6)
