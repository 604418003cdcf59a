"""Where stock prompt tuning puts the prompt, and what that does to positions and padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
)

Build = Callable[..., Any]
PROMPT = 4
PADS = 3


def gemma3() -> PreTrainedModel:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.2}
    return Gemma3ForCausalLM(Gemma3TextConfig(**shape, **heads, vocab_size=64, pad_token_id=0))


def opt() -> PreTrainedModel:
    shape = {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 2}
    config = OPTConfig(**shape, num_attention_heads=2, vocab_size=64, init_std=0.2)
    return OPTForCausalLM(config)


def bloom() -> PreTrainedModel:
    shape = {"hidden_size": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.2}
    return BloomForCausalLM(BloomConfig(**shape, vocab_size=64))


def padded(ids: torch.Tensor, side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids with three pads at one side, and their mask."""
    pads = ids.new_zeros(ids.shape[0], PADS)
    parts = {"left": (pads, ids), "right": (ids, pads)}[side]
    mask = torch.cat([torch.full_like(part, int(part is ids)) for part in parts], dim=1)
    return torch.cat(parts, dim=1), mask


@torch.no_grad()
def padding_error(model: PeftModel, ids: torch.Tensor, side: str) -> float:
    """Largest change of the last text token's logits when the row is padded."""
    alone = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    rows, mask = padded(ids, side)
    logits = model(input_ids=rows, attention_mask=mask).logits
    last = -1 if side == "left" else -1 - PADS
    return (logits[:, last] - alone[:, -1]).abs().max().item()


def test_prompt_stands_before_the_pads(gpt2: Build, with_prompt: Build, token_ids: Build, inputs_of: Build) -> None:
    """Promise: ours puts the prompt next to the text; stock builds prompt | pads | text."""
    model = with_prompt(gpt2())
    rows, mask = padded(token_ids(2, 5), "left")
    received = inputs_of(model, input_ids=rows, attention_mask=mask, labels=rows)
    expected = torch.cat([model.get_prompt(2), model.word_embeddings(rows)], dim=1)
    assert torch.equal(received["inputs_embeds"], expected)
    assert received["attention_mask"][0].tolist() == [1] * PROMPT + [0] * PADS + [1] * 5
    assert received["attention_mask"].dtype is torch.float32
    assert torch.equal(received["labels"][:, :PROMPT], torch.full((2, PROMPT), -100))
    assert torch.equal(received["labels"][:, PROMPT:], rows)
    assert "input_ids" not in received
    assert "position_ids" not in received


def test_logits_are_longer_than_the_input(gpt2: Build, with_prompt: Build, token_ids: Build) -> None:
    """Promise: logits we return to the user have exactly stock's shape, prompt included."""
    logits = with_prompt(gpt2())(input_ids=token_ids(2, 5)).logits
    assert logits.shape == (2, PROMPT + 5, 64)


def test_input_embeddings_may_replace_ids(gpt2: Build, with_prompt: Build, token_ids: Build) -> None:
    """Promise: `inputs_embeds` works wherever `input_ids` does, as in stock."""
    model, ids = with_prompt(gpt2()), token_ids(2, 5)
    by_ids = model(input_ids=ids).logits
    assert torch.equal(by_ids, model(inputs_embeds=model.word_embeddings(ids)).logits)
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model(labels=ids)


def test_position_ids_are_dropped(gpt2: Build, with_prompt: Build, token_ids: Build, inputs_of: Build) -> None:
    """Promise: ours takes positions from the mask; stock throws the caller's away."""
    model, ids = with_prompt(gpt2()), token_ids(1, 5)
    with pytest.warns(UserWarning, match="Ignoring position ids"):
        received = inputs_of(model, input_ids=ids, position_ids=torch.arange(5)[None] + 9)
    assert received["position_ids"] is None


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3"])
def test_left_padding_breaks_stock(
    name: str, with_prompt: Build, token_ids: Build, request: pytest.FixtureRequest
) -> None:
    """Promise: the text is the prompt under left padding too; stock moves the logits by > 0.1."""
    base = gemma3().eval() if name == "gemma3" else request.getfixturevalue(name)()
    model, ids = with_prompt(base).eval(), token_ids(1, 5)
    assert padding_error(model, ids, "left") > 0.1
    assert padding_error(model, ids, "right") < 1e-4


@pytest.mark.parametrize("build_base", [opt, bloom])
def test_left_padding_is_harmless_where_the_mask_gives_positions(
    build_base: Callable[[], PreTrainedModel], with_prompt: Build, token_ids: Build
) -> None:
    """Promise: our positions agree with models that already count the mask (OPT, Bloom)."""
    model = with_prompt(build_base().eval()).eval()
    assert padding_error(model, token_ids(1, 5), "left") < 1e-4


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3"])
def test_base_models_are_exact_under_positions_from_the_mask(
    name: str, token_ids: Build, request: pytest.FixtureRequest
) -> None:
    """Promise: positions counted over the mask are all that left padding needs."""
    base = gemma3().eval() if name == "gemma3" else request.getfixturevalue(name)()
    ids = token_ids(1, 5)
    rows, mask = padded(ids, "left")
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = base(input_ids=rows, attention_mask=mask, position_ids=positions).logits
        torch.testing.assert_close(logits[:, PADS:], base(ids).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3"])
def test_prompt_of_exact_rows_is_the_prepended_text(
    name: str, with_prompt: Build, token_ids: Build, request: pytest.FixtureRequest
) -> None:
    """Promise: the text is the prompt; without pads stock already equals prepended ids."""
    base = gemma3().eval() if name == "gemma3" else request.getfixturevalue(name)()
    model = with_prompt(base).eval()
    prompt, text = token_ids(1, PROMPT + 5).split([PROMPT, 5], dim=1)
    with torch.no_grad():
        model.prompt_encoder["default"].embedding.weight.copy_(model.word_embeddings(prompt)[0])
        by_adapter = model(input_ids=text, attention_mask=torch.ones_like(text)).logits
        by_text = base(torch.cat([prompt, text], dim=1)).logits
    torch.testing.assert_close(by_adapter, by_text, rtol=0, atol=1e-4)


def test_prompt_stands_before_bos(llama: Build, with_prompt: Build, token_ids: Build) -> None:
    """Promise: ours puts the prompt after a leading BOS, as the tokenizer would; stock before."""
    model = with_prompt(llama()).eval()
    prompt, text = token_ids(1, PROMPT + 5).split([PROMPT, 5], dim=1)
    bos = torch.tensor([[1]])
    with torch.no_grad():
        model.prompt_encoder["default"].embedding.weight.copy_(model.word_embeddings(prompt)[0])
        by_adapter = model(input_ids=torch.cat([bos, text], dim=1)).logits[:, -1]
        before = model.base_model(torch.cat([prompt, bos, text], dim=1)).logits[:, -1]
        after = model.base_model(torch.cat([bos, prompt, text], dim=1)).logits[:, -1]
    torch.testing.assert_close(by_adapter, before, rtol=0, atol=1e-4)
    assert (by_adapter - after).abs().max() > 0.1


@pytest.mark.parametrize("side", ["left", "right"])
def test_encoder_decoder_left_padding_breaks_stock(t5: Build, with_prompt: Build, token_ids: Build, side: str) -> None:
    """Promise: relative positions (T5) count columns, so only moving the prompt can help there."""
    model, ids = with_prompt(t5(), "SEQ_2_SEQ_LM").eval(), token_ids(1, 5)
    rows, mask = padded(ids, side)
    target = token_ids(1, 2)
    with torch.no_grad():
        alone = model(input_ids=ids, attention_mask=torch.ones_like(ids), decoder_input_ids=target)
        beside = model(input_ids=rows, attention_mask=mask, decoder_input_ids=target)
    error = (alone.logits - beside.logits).abs().max()
    assert error > 0.01 if side == "left" else error < 1e-4
