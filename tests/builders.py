"""Tiny randomly initialised models, and prompts on them, with the same weights at every call.

`tests/conftest.py` hands them out as fixtures; a function that runs in processes of its own imports them from here.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, PromptTuningConfig, get_peft_model
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from peft_interp import InterpPromptConfig, embedded
from peft_interp.metrics import references
from peft_interp.tuner.stored_config import SETTINGS_KEY

VOCAB_SIZE = 64
PAD, BOS, EOS = 0, 1, 2
# Wide enough that a wrong position moves the logits by 0.1 and more, not by rounding.
INIT_RANGE = 0.2


def seeded(model_class: type[PreTrainedModel], config: Any) -> PreTrainedModel:
    """Build with the same weights at every call, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model_class(config).eval()


def gpt2(model_class: type[PreTrainedModel] = GPT2LMHeadModel, **overrides: Any) -> PreTrainedModel:
    """Learned absolute positions, no dropout."""
    shape = {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 64}
    dropout = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
    special = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
    settings = {"vocab_size": VOCAB_SIZE, "initializer_range": INIT_RANGE}
    return seeded(model_class, GPT2Config(**{**shape, **dropout, **special, **settings, **overrides}))


def llama(**overrides: Any) -> PreTrainedModel:
    """Rotary positions, head below `.model`, `loss_type == "ForCausalLM"`."""
    shape = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    settings = {"vocab_size": VOCAB_SIZE, "max_position_embeddings": 64, "pad_token_id": PAD}
    return seeded(
        LlamaForCausalLM, LlamaConfig(**{**shape, **heads, **settings, "initializer_range": INIT_RANGE, **overrides})
    )


def t5(**overrides: Any) -> PreTrainedModel:
    """Encoder and decoder, relative positions, no dropout."""
    shape = {"num_layers": 2, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_heads": 2}
    settings = {"vocab_size": VOCAB_SIZE, "dropout_rate": 0.0, "pad_token_id": PAD, "decoder_start_token_id": PAD}
    return seeded(T5ForConditionalGeneration, T5Config(**{**shape, **settings, **overrides}))


def bert(model_class: type[PreTrainedModel] = BertForSequenceClassification, **overrides: Any) -> PreTrainedModel:
    """A bidirectional encoder, no dropout."""
    shape = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    settings = {"vocab_size": VOCAB_SIZE, "max_position_embeddings": 64, "initializer_range": INIT_RANGE}
    return seeded(model_class, BertConfig(**{**shape, **dropout, **settings, **overrides}))


def with_prompt(model: PreTrainedModel, task_type: str | None = "CAUSAL_LM", **config: Any) -> PeftModel:
    """Stock prompt tuning, 4 tokens."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return get_peft_model(model, PromptTuningConfig(task_type=task_type, **{"num_virtual_tokens": 4, **config}))


def readable(
    model: PreTrainedModel, task_type: str | None = "CAUSAL_LM", off_rows: bool = False, **config: Any
) -> PeftModel:
    """Our adapter, 4 tokens; `off_rows` moves its latent away from the table's rows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapted = get_peft_model(
            model, InterpPromptConfig(**{"task_type": task_type, "num_virtual_tokens": 4, **config})
        )
        if off_rows:
            latent = adapted.prompt_encoder["default"].latent
            latent.data += 0.3 * latent.data.std() * torch.randn_like(latent)
    return adapted


def configure(folder: Path, **changes: Any) -> None:
    """Write settings into a saved adapter's config, each where the file has it."""
    stored = json.loads((folder / "adapter_config.json").read_text())
    ours = stored.get(SETTINGS_KEY, {})
    for name, value in changes.items():
        (ours if name in ours else stored)[name] = value
    (folder / "adapter_config.json").write_text(json.dumps(stored))


# transformers has called it activation checkpointing from some version after 5.19 on
CHECKPOINTING = next(
    kind for kind in ("activation", "gradient") if hasattr(PreTrainedModel, f"{kind}_checkpointing_enable")
)


def checkpointing(model: Any, on: bool = True, **options: Any) -> None:
    """Switch gradient checkpointing on or off, by the name that this version of transformers has for it."""
    if on:
        getattr(model, f"{CHECKPOINTING}_checkpointing_enable")(options)
    else:
        getattr(model, f"{CHECKPOINTING}_checkpointing_disable")()


@cache
def _embedded() -> Any:
    return embedded.load_model()


def _is_embedded(model: Any) -> bool:
    """Whether names and weights are those of the embedded model."""
    if type(model) is not GPT2LMHeadModel:
        return False
    found, known = model.state_dict(), _embedded().state_dict()
    return list(found) == list(known) and all(
        value.dtype == known[name].dtype and torch.equal(value.cpu(), known[name]) for name, value in found.items()
    )


class KnownLevels:
    """What people's prompts score under the embedded model: measured once, not each time the model is loaded."""

    def __init__(self) -> None:
        self._measure_sample, self._measure_levels = references._sample, references._measure
        self._samples: dict[str, Any] = {}  # by the tokenizer's content
        self._levels: dict[Any, Any] = {}

    def sample(self, base: Any, tokenizer: Any) -> Any:
        """In place of `references._sample`; any other weights are measured."""
        if not _is_embedded(base):
            return self._measure_sample(base, tokenizer)
        content = tokenizer.backend_tokenizer.to_str()
        if content not in self._samples:
            self._samples[content] = self._measure_sample(base, tokenizer)
        return self._samples[content]

    def measure(self, tokenizer: Any, prompts: Any, length: int | None, metrics: Any) -> Any:
        """In place of `references._measure`, for the samples that are kept."""
        content = next((one for one, known in self._samples.items() if known is prompts), None)
        if content is None:
            return self._measure_levels(tokenizer, prompts, length, metrics)
        key = (content, length, tuple(metrics))
        if key not in self._levels:
            self._levels[key] = self._measure_levels(tokenizer, prompts, length, metrics)
        return self._levels[key]
