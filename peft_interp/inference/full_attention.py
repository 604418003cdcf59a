"""Whether a causal LM sees its whole text in every layer, so that it can go on from what others have computed."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from peft_interp.inference.compat import cache_argument
from peft_interp.inference.padding_habits import first_position


def sees_whole_text(model: PreTrainedModel) -> bool:
    """No layer with a sliding window or a recurrent state."""
    if getattr(model, "_is_stateful", False):
        return False
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


def continues_from_cache(model: PreTrainedModel) -> bool:
    """Whether a causal LM can go on from an expanded cache with exactly the result of a plain pass.

    It needs a head of its own, the stock causal loss, ordinary attention in all layers, no further loss of its own
    (mixtures of experts), and no gradient checkpointing, which forbids caches.
    """
    return (
        cache_argument(model) is not None
        and {"attention_mask", "position_ids"} <= set(inspect.signature(model.forward).parameters)
        and getattr(model, "loss_type", None) in ("ForCausalLM", None)
        and first_position(model) == 0
        and not model.config.is_encoder_decoder
        and not recomputes_activations(model)
        and model.get_output_embeddings() is not None
        and not getattr(model.config.get_text_config(), "output_router_logits", False)
        and sees_whole_text(model)
    )


def takes_own_mask(model: PreTrainedModel) -> bool:
    """Whether a causal LM takes an expanded cache and a mask of our own for every token."""
    attention = getattr(model.config.get_text_config(), "_attn_implementation", None)
    return attention in ("sdpa", "eager") and continues_from_cache(model)


@contextmanager
def keeping_activations(model: nn.Module) -> Iterator[None]:
    """While open, gradient checkpointing is off: what it does re-entrantly knows no gradient of single tensors."""
    layers = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
    for layer in layers:
        layer.gradient_checkpointing = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = True  # type: ignore[assignment]


def recomputes_activations(model: nn.Module) -> bool:
    """Whether gradient checkpointing is on in any layer."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
