"""What differs between the supported versions of transformers, in one place.

From 5.24 on a model's key/value cache is called `cache`, in arguments and outputs; before, `past_key_values`. Later
versions upload through a client of their own, earlier ones through that of `huggingface_hub`.
"""

from __future__ import annotations

import inspect
from typing import Any

import huggingface_hub
import transformers.utils.hub
from transformers import EncoderDecoderCache, PreTrainedModel

_CACHE_NAMES = ("cache", "past_key_values")  # the newer first


def cache_argument(model: PreTrainedModel) -> str | None:
    """What a model's `forward` calls its key/value cache; None where it takes none."""
    parameters = inspect.signature(model.forward).parameters
    return next((name for name in _CACHE_NAMES if name in parameters), None)


def with_cache(model: PreTrainedModel, cache: Any) -> dict[str, Any]:
    """Keywords that hand a cache, or None, to a model."""
    name = cache_argument(model)
    return {} if name is None else {name: cache}


def take_cache(arguments: dict[str, Any]) -> Any:
    """Remove the cache from a call's keywords, whatever it is called there.

    Args:
        arguments: changed in place.

    Returns:
        The cache, or None.
    """
    found = [arguments.pop(name, None) for name in _CACHE_NAMES]
    return next((cache for cache in found if cache is not None), None)


def cache_of(output: Any) -> Any:
    """The cache that a model has returned, or None."""
    fields = dict(output.items()) if hasattr(output, "items") else vars(output)
    return take_cache(fields)


def keys_and_values(output: Any) -> list[Any]:
    """Layers of the self-attention's cache that a model has returned."""
    cache = cache_of(output)
    layers: list[Any] = (cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache).layers
    return layers


def wait_for_uploads() -> None:
    """Wait until all that Trainer has begun to upload is on the Hub."""
    client = getattr(transformers.utils.hub, "hf_api", None)
    queue = huggingface_hub.run_as_future if client is None else client().run_as_future
    queue(lambda: None).result()  # in line after the uploads
