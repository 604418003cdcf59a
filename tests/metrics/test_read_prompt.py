"""`read_prompt`: every prompt adapter with input vectors, read as text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    CPTConfig,
    LoraConfig,
    MultitaskPromptTuningConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from peft_interp.metrics.reading import prompt_vectors, read_prompt

Build = Callable[..., Any]
CAUSAL = {"task_type": "CAUSAL_LM"}


def set_vectors(model: Any, vectors: torch.Tensor) -> None:
    with torch.no_grad():
        model.prompt_encoder["default"].embedding.weight.copy_(vectors)


def table_of(model: Any) -> torch.Tensor:
    return model.get_base_model().get_input_embeddings().weight.detach()


def test_our_prompt_is_its_ids(gpt2: Build, readable: Build, words: Any) -> None:
    model = readable(gpt2())
    reading = read_prompt(model, words)
    assert reading.method == "INTERP_PROMPT"
    assert reading.ids == model.prompt_token_ids()
    assert reading.text == model.prompt_text(words)
    assert reading.discrete
    assert reading.position == "start"
    assert [token.text for token in reading.tokens] == [f" w{i}" for i in reading.ids]
    for token in reading.tokens:
        assert token.cosine_distance == token.euclidean_distance == 0
        assert token.neighbours[0].id == token.id
        assert len(token.neighbours) == 5
        distances = [near.cosine_distance for near in token.neighbours]
        assert distances == sorted(distances)


def test_our_soft_prompt_reads_as_its_nearest_tokens(gpt2: Build, readable: Build, words: Any) -> None:
    model = readable(gpt2(), projection_metric="none", prompt_tuning_init="RANDOM", special_token_ids=[0, 1, 2])
    reading = read_prompt(model, words)
    assert not reading.discrete
    assert reading.ids == model.prompt_token_ids()
    assert all(token.cosine_distance > 0.1 for token in reading.tokens)


def test_a_stock_soft_prompt(gpt2: Build, with_prompt: Build, words: Any) -> None:
    model = with_prompt(gpt2())
    vectors = 7 * table_of(model)[[9, 8, 30, 41]] + 0.01
    set_vectors(model, vectors)
    reading = read_prompt(model, words, neighbours=3)
    assert reading.method == "PROMPT_TUNING"
    assert reading.ids == [9, 8, 30, 41]
    assert reading.text == "w9 w8 w30 w41"
    assert not reading.discrete
    assert all(0 < token.cosine_distance < 0.01 for token in reading.tokens)
    assert all(token.euclidean_distance > 0.1 for token in reading.tokens)
    assert [len(token.neighbours) for token in reading.tokens] == [3] * 4


def test_stock_vectors_that_are_rows_are_discrete(gpt2: Build, with_prompt: Build, words: Any) -> None:
    """Bit for bit, and also where the row is a special token's, which nothing is nearest to otherwise."""
    model = with_prompt(gpt2())
    rows = table_of(model)[[9, 1, 30, 41]]
    set_vectors(model, rows)
    reading = read_prompt(model, words)
    assert (reading.ids, reading.discrete) == ([9, 1, 30, 41], True)
    nudged = rows.clone()
    nudged[1, 0] = torch.nextafter(nudged[1, 0], torch.tensor(9.0))
    set_vectors(model, nudged)
    reading = read_prompt(model, words)
    assert not reading.discrete
    assert reading.ids[1] != 1


def test_zero_rows_and_unknown_ids_are_nearest_to_nothing(gpt2: Build, with_prompt: Build, words: Any) -> None:
    base = gpt2(vocab_size=70)  # the tokenizer has 64
    with torch.no_grad():
        base.transformer.wte.weight[20] = 0
    model = with_prompt(base)
    set_vectors(model, torch.stack([table_of(model)[68] * 2, torch.zeros(32), *torch.randn(2, 32) * 1e-30]))
    reading = read_prompt(model, words)
    near = {n.id for token in reading.tokens for n in token.neighbours}
    assert near.isdisjoint({0, 1, 2, 64, 65, 66, 67, 68, 69})
    assert [token.cosine_distance == token.cosine_distance for token in reading.tokens] == [True] * 4  # no NaN
    assert all(20 not in [n.id for n in token.neighbours] for token in (reading.tokens[0], *reading.tokens[2:]))


@pytest.mark.parametrize(
    ("config", "method"),
    [
        (PromptEncoderConfig(num_virtual_tokens=4, encoder_hidden_size=16, **CAUSAL), "P_TUNING"),
        (
            PromptEncoderConfig(
                num_virtual_tokens=4, encoder_hidden_size=16, encoder_dropout=0.5,
                encoder_reparameterization_type="LSTM", **CAUSAL,
            ),
            "P_TUNING",
        ),
        (CPTConfig(cpt_token_ids=[5, 9, 11, 12], cpt_mask=[1] * 4, cpt_tokens_type_mask=[1] * 4, **CAUSAL), "CPT"),
    ],
    ids=["mlp", "lstm", "cpt"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:for MLP, the argument:UserWarning", "ignore:dropout option adds:UserWarning")
def test_other_methods_are_read_by_what_enters_the_model(
    gpt2: Build, words: Any, inputs_of: Build, config: Any, method: str
) -> None:
    model = get_peft_model(gpt2(), config).train()
    reading = read_prompt(model, words)
    assert reading.method == method
    assert reading.discrete == (method == "CPT")  # untrained, it is its tokens
    if method == "CPT":
        assert reading.ids == [5, 9, 11, 12]
    assert all(module.training for module in model.prompt_encoder.modules())
    entered = inputs_of(model.eval(), input_ids=torch.tensor([[7, 8]]))["inputs_embeds"][0, :4]
    torch.testing.assert_close(prompt_vectors(model), entered.detach())


def test_a_saved_adapter_reads_the_same(gpt2: Build, words: Any, tmp_path: Path) -> None:
    """In inference mode PEFT reads the final vectors from another place."""
    model = get_peft_model(gpt2(), PromptEncoderConfig(num_virtual_tokens=4, encoder_hidden_size=16, **CAUSAL))
    model.save_pretrained(tmp_path)
    assert read_prompt(PeftModel.from_pretrained(gpt2(), tmp_path), words) == read_prompt(model, words)


def test_one_of_several_adapters(gpt2: Build, readable: Build, words: Any) -> None:
    model = readable(gpt2())
    model.add_adapter("stock", PromptTuningConfig(num_virtual_tokens=3, **CAUSAL))
    assert read_prompt(model, words).method == "INTERP_PROMPT"
    assert read_prompt(model, words, "stock").method == "PROMPT_TUNING"
    assert len(read_prompt(model, words, "stock").tokens) == 3
    assert model.active_adapter == "default"
    with pytest.raises(ValueError, match=r"no adapter 'other' here; adapters: \['default', 'stock'\]"):
        read_prompt(model, words, "other")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (PrefixTuningConfig(num_virtual_tokens=4, **CAUSAL), "PREFIX_TUNING trains keys and values .* no text to read"),
        (MultitaskPromptTuningConfig(num_virtual_tokens=4, num_tasks=2, **CAUSAL), "another prompt for each task id"),
        (
            LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True, **CAUSAL),
            "'default' is LORA, which changes",
        ),
    ],
    ids=["prefix", "multitask", "lora"],
)
def test_methods_without_one_text_say_why(gpt2: Build, words: Any, config: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_prompt(get_peft_model(gpt2(), config), words)


def test_broken_vectors_are_refused(gpt2: Build, with_prompt: Build, words: Any) -> None:
    model = with_prompt(gpt2())
    set_vectors(model, torch.full((4, 32), float("nan")))
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        read_prompt(model, words)


def test_scaled_embeddings(with_prompt: Build, words: Any) -> None:
    """Gemma multiplies its rows on the way in: exact vectors are scaled rows, distances in the table's units."""
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32, "num_attention_heads": 2}
    heads = {"num_key_value_heads": 1, "head_dim": 16, "vocab_size": 64, "pad_token_id": 0}
    base = Gemma3ForCausalLM(Gemma3TextConfig(**shape, **heads))
    model = with_prompt(base)
    scaled = base.get_input_embeddings()(torch.tensor([9, 8, 30, 41])).detach()
    assert not torch.allclose(scaled, table_of(model)[[9, 8, 30, 41]])
    set_vectors(model, scaled)
    reading = read_prompt(model, words)
    assert (reading.ids, reading.discrete) == ([9, 8, 30, 41], True)
    set_vectors(model, 2 * scaled)
    reading = read_prompt(model, words)
    assert (reading.ids, reading.discrete) == ([9, 8, 30, 41], False)
    norms = table_of(model)[[9, 8, 30, 41]].norm(dim=1)
    assert [token.euclidean_distance for token in reading.tokens] == pytest.approx(norms.tolist(), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(gpt2: Build, readable: Build, words: Any, dtype: torch.dtype) -> None:
    reading = read_prompt(readable(gpt2().to(dtype)), words)
    assert reading.discrete
    assert all(token.cosine_distance == 0 for token in reading.tokens)


def test_typical_distances_are_those_of_the_nearest_other_token(gpt2: Build, with_prompt: Build, words: Any) -> None:
    model = with_prompt(gpt2())
    rows = table_of(model)[3:]
    cosines = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=-1).fill_diagonal_(-1)
    far = torch.cdist(rows, rows).fill_diagonal_(torch.inf)
    reading = read_prompt(model, words)
    assert reading.typical_cosine_distance == pytest.approx((1 - cosines.amax(1)).mean().item(), abs=1e-5)
    assert reading.typical_euclidean_distance == pytest.approx(far.amin(1).mean().item(), abs=1e-4)
