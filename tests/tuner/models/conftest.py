"""More tiny models, and the plain text form that an adapter has to equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    RobertaConfig,
    RobertaForTokenClassification,
)

Build: TypeAlias = Callable[..., Any]
VOCAB_SIZE = 64
PAD, BOS, EOS = 0, 1, 2
SPECIAL = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
COMMON = {"vocab_size": VOCAB_SIZE, **SPECIAL}
SHAPE = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "initializer_range": 0.2}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}


def opt(**overrides: Any) -> PreTrainedModel:
    shape = {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 2, "dropout": 0.0}
    settings = {"num_attention_heads": 2, "max_position_embeddings": 64, "init_std": 0.2}
    return OPTForCausalLM(OPTConfig(**{**shape, **settings, **COMMON, **overrides}))


def opt_narrow(**overrides: Any) -> PreTrainedModel:
    """Word vectors narrower than the hidden states, as in OPT-350m."""
    return opt(word_embed_proj_dim=16, do_layer_norm_before=False, **overrides)


def gemma2(**overrides: Any) -> PreTrainedModel:
    special = {"sliding_window": 4, "head_dim": 16, "final_logit_softcapping": 5.0, "query_pre_attn_scalar": 16}
    return Gemma2ForCausalLM(Gemma2Config(**{**SHAPE, **HEADS, **COMMON, **special, **overrides}))


def gemma3(**overrides: Any) -> PreTrainedModel:
    special = {"sliding_window": 4, "head_dim": 16, "query_pre_attn_scalar": 16}
    return Gemma3ForCausalLM(Gemma3TextConfig(**{**SHAPE, **HEADS, **COMMON, **special, **overrides}))


def mistral(**overrides: Any) -> PreTrainedModel:
    return MistralForCausalLM(MistralConfig(**{**SHAPE, **HEADS, **COMMON, "sliding_window": 4, **overrides}))


def qwen2(**overrides: Any) -> PreTrainedModel:
    return Qwen2ForCausalLM(Qwen2Config(**{**SHAPE, **HEADS, **COMMON, **overrides}))


def bloom(**overrides: Any) -> PreTrainedModel:
    shape = {"hidden_size": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.2}
    dropout = {"hidden_dropout": 0.0, "attention_dropout": 0.0}
    return BloomForCausalLM(BloomConfig(**{**shape, **dropout, **COMMON, **overrides}))


BUILDERS = {f.__name__: f for f in (opt, opt_narrow, gemma2, gemma3, mistral, qwen2, bloom)}


@pytest.fixture
def causal(gpt2: Build, llama: Build) -> Build:
    """`causal("llama", **config)`: the same weights at every call, evaluation mode."""

    def build(name: str, **overrides: Any) -> PreTrainedModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if name in BUILDERS:
                return BUILDERS[name](**overrides).eval()
        return {"gpt2": gpt2, "llama": llama}[name](**{**SPECIAL, **overrides})

    return build


@pytest.fixture
def bart() -> Build:
    def build(**overrides: Any) -> PreTrainedModel:
        layers = {"encoder_layers": 2, "decoder_layers": 2, "d_model": 32, "init_std": 0.2, "dropout": 0.0}
        heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
        width = {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64}
        start = {"decoder_start_token_id": EOS, "forced_eos_token_id": None, "forced_bos_token_id": None}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = BartConfig(**{**layers, **heads, **width, **COMMON, **start, **overrides})
            return BartForConditionalGeneration(config).eval()

    return build


@pytest.fixture
def roberta() -> Build:
    def build(model_class: type[PreTrainedModel] = RobertaForTokenClassification, **overrides: Any) -> PreTrainedModel:
        dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        settings = {"num_attention_heads": 2, "max_position_embeddings": 64, "type_vocab_size": 1}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return model_class(RobertaConfig(**{**SHAPE, **settings, **dropout, **COMMON, **overrides})).eval()

    return build


@pytest.fixture
def readable(readable: Build) -> Build:
    """`readable(model, task_type="CAUSAL_LM", **config)`: our adapter, 4 tokens, its latent off the rows."""
    return lambda *args, **config: readable(*args, **{"off_rows": True, **config}).eval()


@pytest.fixture
def batch() -> Build:
    """`batch(rows, side, prompt=())`: padded ids and mask; the prompt goes after a leading BOS."""

    def build(rows: Sequence[Sequence[int]], side: str = "right", prompt: Sequence[int] = ()) -> dict[str, Any]:
        full = []
        for row in rows:
            lead = 1 if row[0] == BOS else 0
            full.append([*row[:lead], *prompt, *row[lead:]])
        width = max(len(row) for row in full)
        ids, mask = [], []
        for row in full:
            pads = [PAD] * (width - len(row))
            zeros, ones = [0] * len(pads), [1] * len(row)
            ids.append([*pads, *row] if side == "left" else [*row, *pads])
            mask.append([*zeros, *ones] if side == "left" else [*ones, *zeros])
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}

    return build


@pytest.fixture
def rows(token_ids: Build) -> Build:
    """`rows(bos)`: three rows of 7, 4 and 5 ordinary tokens; BOS in front of "all", "some" or "no" rows."""

    def build(bos: str = "no") -> list[list[int]]:
        plain = [row[:n] for row, n in zip(token_ids(3, 7).tolist(), (7, 4, 5), strict=True)]
        leads = {"no": [False] * 3, "all": [True] * 3, "some": [False, True, False]}[bos]
        return [[BOS, *row] if lead else row for row, lead in zip(plain, leads, strict=True)]

    return build
