"""Gradient checkpointing, device maps and half precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from peft_interp.inference.full_attention import recomputes_activations
from tests.builders import checkpointing

Build = Callable[..., Any]


def step(model: Any, given: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    latent = model.prompt_encoder["default"].latent
    latent.grad = None
    loss = model.train()(**given, labels=given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)).loss
    loss.backward()
    return loss.detach(), latent.grad.clone()


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_gradient_checkpointing(
    causal: Build, readable: Build, batch: Build, rows: Build, name: str, reentrant: bool, before: bool
) -> None:
    """Switched on before or after `get_peft_model`: the same step, without a shared prefix."""
    given = batch(rows("all"), "left")
    expected = step(readable(causal(name), perplexity_weight=0.5), given)
    base = causal(name)
    if before:
        checkpointing(base, use_reentrant=reentrant)
    model = readable(base, perplexity_weight=0.5)
    if not before:
        checkpointing(model.base_model, use_reentrant=reentrant)
    loss, gradient = step(model, given)
    torch.testing.assert_close(loss, expected[0], rtol=1e-5, atol=0)
    assert (gradient - expected[1]).norm() <= 1e-5 * expected[1].norm()
    with torch.no_grad():
        assert torch.equal(model.eval()(**given).logits, readable(causal(name))(**given).logits)


@pytest.mark.parametrize("reentrant", [True, False])
def test_the_term_of_a_loss_made_of_logits_under_checkpointing(
    causal: Build, readable: Build, batch: Build, rows: Build, reentrant: bool
) -> None:
    """The backward pass does not come to the term, whose gradient is then made in the middle of it."""
    given, gradients = batch(rows("all"), "left"), []
    for weight, recomputed in ((0.5, False), (0.5, True), (0.0, True)):
        model = readable(causal("gpt2"), perplexity_weight=weight).train()
        if recomputed:
            checkpointing(model.base_model, use_reentrant=reentrant)
        model(**given).logits.square().mean().backward()
        gradients.append(model.prompt_encoder["default"].latent.grad)
        assert recomputes_activations(model.base_model) == recomputed
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-7)
    assert not torch.allclose(gradients[2], gradients[0], rtol=1e-2)


def test_gradient_checkpointing_of_a_classifier(bert: Build, readable: Build, batch: Build, rows: Build) -> None:
    given = batch(rows("all"), "right")
    labels = torch.tensor([0, 1, 0])
    gradients = []
    for reentrant in (None, True, False):
        model = readable(bert(), "SEQ_CLS").train()
        if reentrant is not None:
            checkpointing(model.base_model, use_reentrant=reentrant)
        model(**given, labels=labels).loss.backward()
        gradients.append(model.prompt_encoder["default"].latent.grad)
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-4, atol=1e-7)


def test_device_map(causal: Build, readable: Build, batch: Build, rows: Build, tmp_path: Path) -> None:
    causal("llama").save_pretrained(tmp_path)
    mapped = readable(AutoModelForCausalLM.from_pretrained(tmp_path, device_map={"": "cpu"}))
    given = batch(rows("all"), "left")
    loss, gradient = step(mapped, given)
    expected = step(readable(causal("llama")), given)
    assert torch.equal(loss, expected[0])
    assert torch.equal(gradient, expected[1])
    written = mapped.eval().generate(**given, max_new_tokens=4)
    assert torch.equal(written, readable(causal("llama")).generate(**given, max_new_tokens=4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3", "bloom"])
def test_half_precision(
    causal: Build, readable: Build, batch: Build, rows: Build, name: str, dtype: torch.dtype
) -> None:
    """fp32 latent and gradient; the text's own logits; generate."""
    model = readable(causal(name).to(dtype), perplexity_weight=0.1)
    given = batch(rows("all"), "left")
    loss, gradient = step(model, given)
    assert loss.dtype == torch.float32
    assert gradient.dtype == torch.float32
    assert torch.isfinite(gradient).all()
    assert gradient.norm() > 0
    with torch.no_grad():
        ours = model.eval()(input_ids=given["input_ids"][:1]).logits
        text = batch([rows("all")[0]], prompt=model.prompt_token_ids())["input_ids"]
        assert torch.equal(ours, model.base_model(input_ids=text).logits)
    assert model.generate(**given, max_new_tokens=2).shape == (3, 10)


def test_autocast(causal: Build, readable: Build, batch: Build, rows: Build) -> None:
    model = readable(causal("llama"), perplexity_weight=0.1)
    given = batch(rows("all"), "left")
    expected = step(model, given)[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gradient = step(model, given)[1]
    assert torch.nn.functional.cosine_similarity(gradient.flatten(), expected.flatten(), dim=0) > 0.98


def test_dropout_keeps_training_alive(causal: Build, readable: Build, batch: Build, rows: Build) -> None:
    model = readable(causal("gpt2", attn_pdrop=0.5, resid_pdrop=0.5, embd_pdrop=0.5))
    given = batch(rows("all"), "left")
    first, second = step(model, given), step(model, given)
    assert first[0] != second[0]
    with torch.no_grad():
        assert torch.equal(model.eval()(**given).logits, model(**given).logits)
