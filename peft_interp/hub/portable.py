"""The same prompt as a stock `PROMPT_TUNING` adapter, which plain PEFT loads without this package."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from peft import PromptTuningConfig, PromptTuningInit
from safetensors.torch import save_file

from peft_interp.config import PEFT_TYPE_NAME
from peft_interp.hub.adapter_files import CONFIG_FILE, WEIGHTS_FILE, read_config, stock_tensors

_REPLACED = ("peft_type", "prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs")


def has_portable(config: dict[str, Any]) -> bool:
    """Whether plain PEFT can place the prompt of this `adapter_config.json`."""
    return config.get("prompt_position") != "end"


def remove_portable(destination: Path) -> None:
    """Remove the copy of an earlier prompt, and its folder if nothing else is in it."""
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        (destination / name).unlink(missing_ok=True)
    if destination.is_dir() and not any(destination.iterdir()):
        destination.rmdir()


def write_portable(adapter: Path, destination: Path) -> None:
    """Write the stock copy of an InterpPrompt adapter: the effective rows, and trained heads beside them.

    It gives the same logits where a row has neither left padding nor a BOS or CLS token: stock PEFT puts the prompt
    in front of those, and nowhere else, so a prompt that stands at the end has no such copy. Its config has stock keys
    only, since plain PEFT would warn about others.

    Args:
        adapter: folder of the adapter.
        destination: folder to write into; made where it is missing.

    Raises:
        ValueError: another adapter, a prompt at the end of the input, or broken files.
    """
    config = read_config(adapter)
    if config.get("peft_type") != PEFT_TYPE_NAME:
        raise ValueError(
            f"{str(adapter)!r} holds a {config.get('peft_type')} adapter, which plain PEFT loads as it is; a portable "
            f"copy is made of {PEFT_TYPE_NAME} adapters."
        )
    if not has_portable(config):
        raise ValueError(
            f"the prompt in {str(adapter)!r} stands at the end of the input, and plain PEFT puts a prompt at its start "
            "only, so there is no copy for it; use the prompt's text (`--to text`)."
        )
    known = {field.name for field in fields(PromptTuningConfig) if field.init} - set(_REPLACED)
    # RANDOM, since the values come from the file; TEXT would make PEFT load a tokenizer for nothing
    stock = PromptTuningConfig(
        prompt_tuning_init=PromptTuningInit.RANDOM, **{name: config[name] for name in known if name in config}
    )
    destination.mkdir(parents=True, exist_ok=True)
    save_file(stock_tensors(adapter), str(destination / WEIGHTS_FILE), metadata={"format": "pt"})
    stock.save_pretrained(str(destination))
