"""How a prompt's config stands in `adapter_config.json`, so that PEFT without this package loads the prompt as well.

A prompt before the text is stored as prompt tuning, `PROMPT_TUNING`, which is what plain PEFT makes of it; what only
this package knows stands under one key, which plain PEFT leaves out with a warning that names it. Plain PEFT would put
any other prompt where it does not belong, so that one has a type of its own, whose name is all that plain PEFT says.
Files of earlier versions have that type, as one word, for every prompt.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from peft import PeftType, PromptTuningConfig, PromptTuningInit

from peft_interp.text.placement import placement_of

PEFT_TYPE_NAME = "INTERP_PROMPT"
NOT_FOR_PLAIN_PEFT = f"{PEFT_TYPE_NAME}: plain PEFT cannot place this prompt; `import peft_interp` before it is loaded"
SETTINGS_KEY = "peft_interp"
_STOCK = PeftType.PROMPT_TUNING.value
# RANDOM, since the values come from the file; TEXT would make plain PEFT load a tokenizer for nothing
_START = {
    "prompt_tuning_init": PromptTuningInit.RANDOM.value,
    "prompt_tuning_init_text": None,
    "tokenizer_name_or_path": None,
    "tokenizer_kwargs": None,
}
_STOCK_NAMES = frozenset(field.name for field in fields(PromptTuningConfig))


def stock_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of a config's settings those that plain prompt tuning has, with a start that asks for nothing."""
    known = {name: value for name, value in settings.items() if name in _STOCK_NAMES}
    return {**known, **_START, "peft_type": _STOCK}


def to_stored(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is written for a config's settings, by name; `from_stored` takes it back."""
    if not placement_of(dict(settings)).before_text:
        return {**settings, "peft_type": NOT_FOR_PLAIN_PEFT}
    stock = stock_settings(settings)
    return {**stock, SETTINGS_KEY: {k: v for k, v in settings.items() if k not in stock or k in _START}}


def is_stored_prompt(stored: Mapping[str, Any]) -> bool:
    """Whether the content of an `adapter_config.json` is of a prompt of this package's."""
    method = stored.get("peft_type")
    return method in (PEFT_TYPE_NAME, NOT_FOR_PLAIN_PEFT) or (method == _STOCK and SETTINGS_KEY in stored)


def from_stored(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, by name, that an `adapter_config.json` holds; that of another method is returned as it is.

    Raises:
        ValueError: the file tells plain PEFT one thing and this package another.
    """
    if not is_stored_prompt(stored):
        return dict(stored)
    found = {**stored, "peft_type": PEFT_TYPE_NAME}
    if stored["peft_type"] != _STOCK:
        return found
    settings = found.pop(SETTINGS_KEY)
    if not isinstance(settings, Mapping):
        raise ValueError(f"`{SETTINGS_KEY}` of the saved config must be an object, not {settings!r}; ask for it anew.")
    if twice := sorted(settings.keys() & _STOCK_NAMES - _START.keys()):
        raise ValueError(
            f"the saved config has {', '.join(twice)} under `{SETTINGS_KEY}`, which plain PEFT reads elsewhere in it: "
            "it may say one thing here and another there. Ask for it anew."
        )
    if not (place := placement_of(dict(settings))).before_text:
        raise ValueError(
            f"the saved config is of the type {_STOCK}, so plain PEFT would put its prompt in front of the text, where "
            f"it does not stand by `prompt_position={place.name!r}`; ask for it anew."
        )
    return {**found, **settings}


def known_settings(stored: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """As `from_stored`, without what a config class does not have; what is left out is warned of.

    Args:
        stored: content of an `adapter_config.json`.
        kind: the class.
    """
    settings, known = from_stored(stored), {field.name for field in fields(kind) if field.init}
    if unknown := sorted(settings.keys() - known):
        warnings.warn(
            f"Unexpected keyword arguments {unknown} for class {kind.__name__}, these are ignored. They are probably "
            "of a later version of peft_interp or PEFT; upgrade them if the prompt does not act as it should.",
            stacklevel=3,
        )
    return {name: value for name, value in settings.items() if name in known}
