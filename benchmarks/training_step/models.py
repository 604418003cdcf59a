"""The models, of random weights, and the batches that are measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel, PromptTuningConfig, get_peft_model
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from peft_interp.tuner.config import InterpPromptConfig

PERPLEXITY_WEIGHT = 0.1
LLAMA_1B = {"hidden_size": 2048, "num_hidden_layers": 16, "intermediate_size": 8192, "num_attention_heads": 32}
LLAMA_8B = {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336, "num_attention_heads": 32}
LLAMA_4 = {"hidden_size": 1024, "num_hidden_layers": 4, "intermediate_size": 2816, "num_attention_heads": 16}
GPT2_TINY = {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 500}
LLAMA_TINY = {"hidden_size": 256, "num_hidden_layers": 2, "intermediate_size": 512, "num_attention_heads": 4}
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "gpt2-4": {"n_layer": 4},
    "gpt2-12-thin": {"n_embd": 64, "n_head": 4, "vocab_size": 1000},  # real depth, for counting operations
    "gpt2-tiny": GPT2_TINY,
    "llama-1b": {**LLAMA_1B, "vocab_size": 128256, "tie_word_embeddings": True},
    "llama-8b": {**LLAMA_8B, "vocab_size": 128256},
    "llama-4": {**LLAMA_4, "vocab_size": 32000},
    "llama-16-thin": {**LLAMA_TINY, "num_hidden_layers": 16, "vocab_size": 1000, "num_key_value_heads": 2},
    "llama-tiny": {**LLAMA_TINY, "vocab_size": 500, "num_key_value_heads": 2, "initializer_range": 0.1},
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Case:
    """A model and a batch.

    Attributes:
        model: a name in `SHAPES`.
        dtype: a name in `DTYPES`.
        batch: rows.
        prompt: prompt tokens.
        text: text tokens of each row.
        labels: "one" for each row, as in classification, or "all".
    """

    model: str
    dtype: str
    batch: int
    prompt: int
    text: int
    labels: str

    @property
    def shape(self) -> tuple[int, int]:
        """Of the text."""
        return self.batch, self.text

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.model} {self.dtype} B{self.batch} P{self.prompt} L{self.text} {self.labels}"


@contextmanager
def _made_on(device: str, dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def base_model(name: str, dtype: str, device: str) -> Any:
    """A causal LM of random weights without dropout, the same at every call."""
    torch.manual_seed(0)
    settings = SHAPES[name]
    with _made_on(device, DTYPES[dtype]):
        if name.startswith("gpt2"):
            none = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "bos_token_id": 1, "eos_token_id": 1}
            return GPT2LMHeadModel(GPT2Config(**{**none, **settings}))
        heads = {"num_key_value_heads": 8, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 4096}
        return LlamaForCausalLM(LlamaConfig(**{**heads, **settings}))


def adapted(base: Any, prompt: int, ours: bool, **config: Any) -> PeftModel:
    """`base` with stock prompt tuning or with our prompt and its perplexity term, in training mode."""
    shared: dict[str, Any] = {"task_type": "CAUSAL_LM", "num_virtual_tokens": prompt}
    if not ours:
        model = get_peft_model(base, PromptTuningConfig(**shared))
    else:
        settings = {"perplexity_weight": PERPLEXITY_WEIGHT, "leading_token_ids": [1], **config}
        model = get_peft_model(base, InterpPromptConfig(**{**shared, **settings}))
    return model.to(base.device).train()


def trained(model: PeftModel) -> Tensor:
    """The one tensor that either adapter trains, (prompt, dim)."""
    (parameter,) = (parameter for parameter in model.parameters() if parameter.requires_grad)
    return parameter


def case_batch(case: Case, vocabulary: int, device: Any) -> dict[str, Tensor]:
    """Random text without padding or BOS."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, vocabulary - 1, (case.batch, case.text), generator=generator)
    labels = ids.clone()
    if case.labels == "one":
        labels[:, :-1] = -100
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    return {name: tensor.to(device) for name, tensor in batch.items()}
