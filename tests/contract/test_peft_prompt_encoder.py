"""What PEFT asks of a prompt encoder: how it is built, read and trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PEFT_TYPE_TO_TUNER_MAPPING, PeftModel, PeftType, PromptEmbedding
from transformers import (
    BertModel,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    OPTConfig,
    OPTForCausalLM,
)

from tests.builders import checkpointing

Build = Callable[..., Any]


class RecordingEmbedding(PromptEmbedding):
    """Stock, but keeps the indices it is called with."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.seen: list[torch.Tensor] = []

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        self.seen.append(indices)
        return super().forward(indices) + 1.0


@pytest.fixture
def recorded(gpt2: Build, with_prompt: Build, monkeypatch: pytest.MonkeyPatch) -> PeftModel:
    monkeypatch.setitem(PEFT_TYPE_TO_TUNER_MAPPING, PeftType.PROMPT_TUNING, RecordingEmbedding)
    return with_prompt(gpt2())


def test_training_calls_the_encoder_once_with_one_row(recorded: PeftModel) -> None:
    """Promise: the prompt is computed once per step, whatever the batch size."""
    encoder = recorded.prompt_encoder["default"]
    prompts = recorded.get_prompt(batch_size=3)  # (batch, prompt, dim)
    (indices,) = encoder.seen
    assert torch.equal(indices, torch.arange(4)[None])
    assert torch.equal(prompts, (encoder.embedding.weight + 1.0).repeat(3, 1, 1))


def test_evaluation_still_calls_the_encoder(recorded: PeftModel) -> None:
    """Promise: `eval()` alone keeps the projecting path; only `inference_mode` leaves it."""
    recorded.eval()
    recorded.get_prompt(batch_size=3)
    assert len(recorded.prompt_encoder["default"].seen) == 1


def test_inference_mode_reads_the_weight_and_bypasses_forward(recorded: PeftModel) -> None:
    """Promise: `prompt_encoder.embedding.weight` is the effective (projected) prompt."""
    encoder = recorded.prompt_encoder["default"]
    recorded.peft_config["default"].inference_mode = True
    prompts = recorded.get_prompt(batch_size=3)
    assert not encoder.seen
    assert torch.equal(prompts, encoder.embedding.weight.repeat(3, 1, 1))


def test_every_encoder_parameter_receives_a_gradient(gpt2: Build, with_prompt: Build, token_ids: Build) -> None:
    """Promise: our encoder has no frozen or unused parameter (PEFT's own suite, DDP)."""
    model = with_prompt(gpt2())
    ids = token_ids(2, 5)
    model(input_ids=ids, labels=ids).loss.backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {name for name, _ in model.named_parameters() if "prompt_encoder" in name}
    assert trained == {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_encoder_stays_fp32_over_a_half_precision_base(
    gpt2: Build, with_prompt: Build, token_ids: Build, dtype: torch.dtype
) -> None:
    """Promise: the latent is trained in fp32; the forward casts the prompt to the base's dtype."""
    model = with_prompt(gpt2().to(dtype))
    assert model.prompt_encoder["default"].embedding.weight.dtype is torch.float32
    assert model.get_prompt(batch_size=1).dtype is torch.float32
    assert model(input_ids=token_ids(2, 5)).logits.dtype is dtype


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_reaches_the_prompt(
    gpt2: Build, with_prompt: Build, token_ids: Build, use_reentrant: bool
) -> None:
    """Promise: ours trains under both kinds of gradient checkpointing, as stock does."""
    ids = token_ids(2, 5)
    plain, checkpointed = with_prompt(gpt2()), with_prompt(gpt2())
    checkpointing(checkpointed, use_reentrant=use_reentrant)
    for model in (plain, checkpointed):
        model.train()
        model(input_ids=ids, labels=ids).loss.backward()
    first, second = (m.prompt_encoder["default"].embedding.weight.grad for m in (plain, checkpointed))
    torch.testing.assert_close(first, second)


def test_narrow_word_embeddings_break_the_stock_width(with_prompt: Build, token_ids: Build) -> None:
    """Promise: we use the embedding's width; stock's `hidden_size` fails on OPT-350m's shape."""
    shape = {"hidden_size": 32, "word_embed_proj_dim": 16, "ffn_dim": 64, "num_hidden_layers": 1}
    config = OPTConfig(**shape, num_attention_heads=2, vocab_size=64, max_position_embeddings=64)
    model = with_prompt(OPTForCausalLM(config))
    assert model.peft_config["default"].token_dim == 32
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        model(input_ids=token_ids(1, 5))
    told = with_prompt(OPTForCausalLM(config), token_dim=16)
    assert told(input_ids=token_ids(1, 5)).logits.shape == (1, 9, 64)


def test_word_embeddings_are_found_by_vocabulary_size(t5: Build, bert: Build, with_prompt: Build) -> None:
    """Promise: our table is the module PEFT found; for T5 that is the encoder's own."""
    model = with_prompt(t5(), "SEQ_2_SEQ_LM")
    assert model.transformer_backbone_name == "encoder"
    assert model.word_embeddings is model.get_base_model().encoder.embed_tokens
    bare = with_prompt(bert(BertModel), "FEATURE_EXTRACTION")
    assert bare.word_embeddings is bare.get_base_model().embeddings.word_embeddings


def test_scaled_word_embeddings_scale_in_the_module(with_prompt: Build) -> None:
    """Promise: we compare unscaled rows and look up through the module (Gemma)."""
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    base = Gemma3ForCausalLM(Gemma3TextConfig(**shape, **heads, vocab_size=64, pad_token_id=0))
    model = with_prompt(base, prompt_tuning_init="SAMPLE_VOCAB")
    ids = torch.arange(64)
    looked_up, rows = model.word_embeddings(ids), model.word_embeddings.weight
    torch.testing.assert_close(looked_up, rows * math.sqrt(32))
    prompt = model.prompt_encoder["default"].embedding.weight
    assert (prompt[:, None] == looked_up[None]).all(-1).any(-1).all()


def test_encoder_decoder_gets_twice_the_rows_and_uses_half(t5: Build, with_prompt: Build, token_ids: Build) -> None:
    """Promise: ours keeps one prompt for SEQ_2_SEQ_LM; stock trains rows that nothing reads."""
    model = with_prompt(t5(), "SEQ_2_SEQ_LM")
    assert model.peft_config["default"].num_transformer_submodules == 2
    ids = token_ids(2, 5)
    model(input_ids=ids, labels=ids).loss.backward()
    gradient = model.prompt_encoder["default"].embedding.weight.grad
    assert gradient.shape == (8, 32)
    assert gradient[:4].abs().sum(1).min() > 0
    assert gradient[4:].abs().max() == 0
    single = with_prompt(t5(), "SEQ_2_SEQ_LM", num_transformer_submodules=1)
    assert single(input_ids=ids, labels=ids).logits.shape == (2, 5, 64)
    assert single.generate(input_ids=ids, max_new_tokens=2).shape == (2, 3)


@pytest.mark.parametrize(("text", "expected"), [("w5 w6", [1, 5, 6, 1]), ("w5 w6 w7 w8", [1, 5, 6, 7])])
def test_text_initialisation_is_silent_about_what_it_changes(
    gpt2: Build, with_prompt: Build, tokenizer_dir: Path, text: str, expected: list[int]
) -> None:
    """Promise: ours adds no BOS and neither cuts nor repeats the text without saying so."""
    model = with_prompt(
        gpt2(),
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text=text,
        tokenizer_name_or_path=str(tokenizer_dir),
    )
    rows = model.word_embeddings.weight[expected]
    assert torch.equal(model.prompt_encoder["default"].embedding.weight, rows)


def test_sample_vocab_draws_from_the_whole_table(
    gpt2: Build, with_prompt: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: ours leaves special and unused rows out of the draw; stock does not."""
    ranges: list[tuple[int, int]] = []

    def draw(low: int, high: int, size: tuple[int, ...], **kwargs: Any) -> torch.Tensor:
        ranges.append((low, high))
        return torch.tensor([0, 1, 2, 63])

    monkeypatch.setattr(torch, "randint", draw)
    model = with_prompt(gpt2(), prompt_tuning_init="SAMPLE_VOCAB")
    assert ranges == [(0, 64)]
    assert torch.equal(
        model.prompt_encoder["default"].embedding.weight,
        model.word_embeddings.weight[[0, 1, 2, 63]],
    )
