"""Promise 2: what enters the base model are the vocabulary's rows, bit for bit, in every float format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

Build = Callable[..., Any]
PROMPT = 4
FORMATS = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3", "opt_narrow"])
def test_vectors_that_enter_the_model(
    causal: Build, readable: Build, inputs_of: Build, token_ids: Build, name: str, dtype: torch.dtype
) -> None:
    model = readable(causal(name).to(dtype))
    encoder = model.prompt_encoder["default"]
    assert encoder.latent.dtype == torch.float32
    rows = model.word_embeddings.weight[torch.tensor(model.prompt_token_ids())]
    assert not torch.equal(encoder.latent.to(dtype), rows)
    received = inputs_of(model.train(), input_ids=token_ids(2, 3))["inputs_embeds"]
    looked_up = model.word_embeddings(torch.tensor(model.prompt_token_ids()))  # scaled in Gemma
    assert received.dtype == dtype
    assert torch.equal(received[0, :PROMPT], looked_up)
    assert torch.equal(received[1, :PROMPT], looked_up)
    assert torch.equal(encoder.prompt().rows, rows)


def test_ids_that_enter_the_model(causal: Build, readable: Build, inputs_of: Build, token_ids: Build) -> None:
    """Without a gradient the text itself enters."""
    model = readable(causal("llama"))
    with torch.no_grad():
        received = inputs_of(model, input_ids=token_ids(1, 3))
    assert "inputs_embeds" not in received
    assert received["input_ids"][0].tolist() == [*model.prompt_token_ids(), *token_ids(1, 3)[0].tolist()]


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_rows_of_the_shared_prefix(causal: Build, readable: Build, token_ids: Build, dtype: torch.dtype) -> None:
    model = readable(causal("llama").to(dtype)).train()
    seen = []
    model(input_ids=token_ids(2, 3), labels=token_ids(2, 3))  # the first step tries the model
    handle = model.base_model.base_model.register_forward_pre_hook(lambda m, a, k: seen.append(k), with_kwargs=True)
    ids = token_ids(2, 3)
    loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss
    handle.remove()
    loss.backward()
    (packed,) = seen[0]["inputs_embeds"]
    assert len(seen) == 1
    assert torch.equal(packed[:PROMPT], model.word_embeddings(torch.tensor(model.prompt_token_ids())))
    assert torch.equal(packed[PROMPT:], model.word_embeddings(ids).flatten(0, 1))
    assert torch.isfinite(model.prompt_encoder["default"].latent.grad).all()


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_saved_rows(causal: Build, readable: Build, dtype: torch.dtype) -> None:
    from peft import get_peft_model_state_dict

    model = readable(causal("llama").to(dtype))
    saved = get_peft_model_state_dict(model)["prompt_embeddings"]
    assert torch.equal(saved, model.word_embeddings.weight[torch.tensor(model.prompt_token_ids())])


def test_soft_prompt_starts_at_what_enters_the_model(causal: Build, readable: Build, batch: Build) -> None:
    """An unprojected prompt begins as the text's embeddings, also where the embedding module scales its rows."""
    model = readable(causal("gemma3"), projection_metric="none", off_rows=False)
    ids = model.prompt_token_ids()
    text = batch([[5, 6, 7]], prompt=ids)
    with torch.no_grad():
        ours = model(**batch([[5, 6, 7]])).logits
        torch.testing.assert_close(ours, causal("gemma3")(**text).logits, atol=1e-5, rtol=1e-5)
        model.use_prompt([9, 10, 11, 12])
        text = batch([[5, 6, 7]], prompt=[9, 10, 11, 12])
        ours = model(**batch([[5, 6, 7]])).logits
        torch.testing.assert_close(ours, causal("gemma3")(**text).logits, atol=1e-5, rtol=1e-5)
