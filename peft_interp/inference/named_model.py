"""Models that a setting or a file names: loaded without running code, from safetensors only."""

from __future__ import annotations

from typing import Any

import transformers
from transformers import PreTrainedModel


def load_named_model(name: str, auto_class: str = "AutoModelForCausalLM", **options: Any) -> PreTrainedModel:
    """A model by its name; nothing of its repository is run.

    Args:
        name: hub name or folder.
        auto_class: of transformers.
        options: of `from_pretrained`.

    Raises:
        ValueError: it needs code of its own or a pickle, or is not to be had.
    """
    given = {**options, "trust_remote_code": False, "use_safetensors": True}
    try:
        model: PreTrainedModel = getattr(transformers, auto_class).from_pretrained(name, **given)
        return model
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"the model {name!r} cannot be loaded as {auto_class} from safetensors, without code of its own ({error}). "
            "Name another, or load it yourself if you trust it and pass the model."
        ) from error
