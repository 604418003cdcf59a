"""What is compared: one randomly initialised GPT-2, once with stock prompt tuning and once with our prompt."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from peft import PeftModel, PromptTuningConfig, get_peft_model
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from peft_interp import InterpPromptConfig

ADAPTERS = ("stock", "ours")
LABELS = ("one", "all")
PERPLEXITY_WEIGHT = 0.3


@dataclass(frozen=True)
class Setting:
    """Sizes of model and batch; the defaults are GPT-2's width and vocabulary with 4 of its 12 layers."""

    width: int = 768
    heads: int = 12
    layers: int = 4
    vocabulary: int = 50257
    batch: int = 16
    prompt: int = 20
    text: int = 32
    device: str = "cpu"


def quiet() -> None:
    """Keep the libraries' notices about themselves out of the output."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # PEFT reads a name that transformers deprecates
    transformers.logging.set_verbosity_error()


def base_model(setting: Setting) -> GPT2LMHeadModel:
    """The language model, the same weights at every call; no dropout, so that losses can be compared."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=setting.vocabulary,
        n_embd=setting.width,
        n_head=setting.heads,
        n_layer=setting.layers,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        bos_token_id=setting.vocabulary - 1,
        eos_token_id=setting.vocabulary - 1,
    )
    return GPT2LMHeadModel(config)


def adapted(setting: Setting, adapter: str, **ours: Any) -> PeftModel:
    """The language model with an adapter, in training mode.

    Args:
        setting: sizes.
        adapter: "stock" (PEFT's prompt tuning) or "ours" (projection and perplexity term).
        ours: config fields of our adapter that differ.
    """
    shared: dict[str, Any] = {"task_type": "CAUSAL_LM", "num_virtual_tokens": setting.prompt}
    if adapter == "stock":
        config = PromptTuningConfig(**shared)
    else:
        config = InterpPromptConfig(**{**shared, "perplexity_weight": PERPLEXITY_WEIGHT, **ours})
    return get_peft_model(base_model(setting), config).to(setting.device).train()


def trained_parameter(model: PeftModel) -> Tensor:
    """The one tensor that either adapter trains, (prompt, dim)."""
    (parameter,) = (parameter for parameter in model.parameters() if parameter.requires_grad)
    return parameter


def random_batch(setting: Setting, labels: str) -> dict[str, Tensor]:
    """Random text without padding.

    Args:
        setting: sizes.
        labels: "one" (the last token of each row, as in classification) or "all" (every token of the text).
    """
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, setting.vocabulary - 1, (setting.batch, setting.text), generator=generator)
    targets = ids.clone()
    if labels == "one":
        targets[:, :-1] = -100
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": targets}
    return {name: tensor.to(setting.device) for name, tensor in batch.items()}
