"""What is compared: one randomly initialised GPT-2, once with stock prompt tuning and once with our prompt."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from peft import PeftModel, PromptTuningConfig, get_peft_model
from torch import Tensor

from benchmarks.random_gpt2 import ModelSize, random_gpt2
from peft_interp import InterpPromptConfig

ADAPTERS = ("stock", "ours")
LABELS = ("one", "all")
PERPLEXITY_WEIGHT = 0.3


@dataclass(frozen=True)
class Setting(ModelSize):
    """Sizes of model and batch."""

    batch: int = 16
    prompt: int = 20
    text: int = 32


def quiet() -> None:
    """Keep the libraries' notices about themselves out of the output."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # PEFT reads a name that transformers deprecates
    transformers.logging.set_verbosity_error()


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
    return get_peft_model(random_gpt2(setting), config).to(setting.device).train()


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
