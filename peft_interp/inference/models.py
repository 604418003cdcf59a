"""The types of a model that is measured, and what its class has without saying so to type checkers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

AnyModel = PreTrainedModel | PeftModel  # with adapters or without


def base_model_of(model: AnyModel) -> PreTrainedModel:
    """The base model below an adapter, or the model itself."""
    return cast(PreTrainedModel, model.get_base_model() if isinstance(model, PeftModel) else model)


def input_embeddings(model: AnyModel) -> nn.Embedding:
    """What turns a model's input ids into vectors."""
    return cast(nn.Embedding, model.get_input_embeddings())


def layer_lists(model: PreTrainedModel) -> list[nn.ModuleList]:
    """The lists in a model that are as long as it has layers: the layers, first, and rarely another."""
    count = model.config.get_text_config().num_hidden_layers
    return [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == count]


def generate_of(model: PreTrainedModel) -> Callable[..., Any]:
    """The `generate` of a model that writes."""
    return cast(Callable[..., Any], model.generate)
