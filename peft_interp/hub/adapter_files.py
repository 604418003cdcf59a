"""What a saved adapter's own files say: read from JSON and safetensors only, so that nothing in a folder can run."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from peft import PeftType, PromptTuningConfig
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from peft_interp.storage.atomic import files_together, replace_file
from peft_interp.text.placement import placement_of
from peft_interp.tuner.config import InterpPromptConfig
from peft_interp.tuner.saved_adapter import check_config, check_names, check_tensors, foreign_names
from peft_interp.tuner.stored_config import PEFT_TYPE_NAME, from_stored, stock_settings

logger = logging.getLogger(__name__)
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
TEXT_FILE = "prompt.txt"
FACTS_FILE = "prompt.json"
REPORT_FILE = "prompt_report.json"
CARD_FILE = "README.md"
_PICKLE = "adapter_model.bin"
_MOST_BYTES = 64 * 2**20  # of a JSON file
SAVED_FILES = (CONFIG_FILE, WEIGHTS_FILE, TEXT_FILE, FACTS_FILE, REPORT_FILE, CARD_FILE)


def read_json(path: Path) -> dict[str, Any]:
    """An object stored as JSON.

    Raises:
        ValueError: the file is no JSON object, or larger than any that is written here.
    """
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise ValueError(f"{path} is {size:,} bytes large, which no such file is; ask for the adapter anew.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(content, ensure_ascii=False).encode()  # half characters, which no file can hold
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); save the adapter again.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not an object; save the adapter again.")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Readable, in UTF-8; after a kill the file is the old one or the new one."""
    replace_file(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_config(folder: Path) -> dict[str, Any]:
    """The settings in `adapter_config.json`, without making a config of them; of an InterpPrompt adapter, checked.

    The `peft_type` of an InterpPrompt adapter's is "INTERP_PROMPT", whatever the file has it stored as.

    Raises:
        ValueError: there is none, or it is broken.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise ValueError(f"{str(folder)!r} is no adapter folder (it has no {CONFIG_FILE}); name the folder of one.")
    config = from_stored(read_json(folder / CONFIG_FILE))
    method = config.get("peft_type")
    if not isinstance(method, str) or method not in {PEFT_TYPE_NAME, *(known.value for known in PeftType)}:
        raise ValueError(f"{folder / CONFIG_FILE} names no method of PEFT's (`peft_type={method!r}`); ask for it anew.")
    if method == PEFT_TYPE_NAME:
        check_config(config, InterpPromptConfig)
        placement_of(config)
    return config


def is_adapter(folder: Path) -> bool:
    """Whether the folder has an adapter's config."""
    return (folder / CONFIG_FILE).is_file()


def is_ours(folder: Path) -> bool:
    """Whether the folder holds a complete InterpPrompt adapter."""
    if not (folder / CONFIG_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
        return False
    return read_config(folder).get("peft_type") == PEFT_TYPE_NAME


def check_weights(folder: Path) -> None:
    """Refuse weights that are missing or a pickle, which could run code when it is loaded.

    Raises:
        ValueError: no `adapter_model.safetensors`.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return
    if (folder / _PICKLE).is_file():
        raise ValueError(
            f"{str(folder)!r} holds its weights as a pickle ({_PICKLE}), which is not read here because pickles can "
            f"run code; ask for {WEIGHTS_FILE}, or load and save it with PEFT if you trust it."
        )
    raise ValueError(f"{str(folder)!r} has no {WEIGHTS_FILE}; save the adapter again.")


def read_tensors(folder: Path, names: tuple[str, ...] | None = None) -> dict[str, Tensor]:
    """Tensors of the adapter, on the CPU.

    Args:
        folder: of the adapter.
        names: which ones, as far as they exist. None: all.

    Raises:
        ValueError: as `check_weights`, or a broken file.
    """
    check_weights(folder)
    try:
        with safe_open(str(folder / WEIGHTS_FILE), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if names is None or name in names}  # noqa: SIM118
    except Exception as error:  # safetensors raises a class of its own that it does not export everywhere
        raise ValueError(f"{folder / WEIGHTS_FILE} cannot be read ({error}); save the adapter again.") from None


def checked_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of an InterpPrompt adapter, which agree with each other and with its config.

    Raises:
        ValueError: as `read_config` and `read_tensors`; tensors that are missing, not finite, of other shapes, or that
            belong neither to the prompt nor to a declared module.
    """
    config, tensors = read_config(folder), read_tensors(folder)
    check_names(tensors, config.get("modules_to_save"))
    check_tensors(tensors, config["num_virtual_tokens"], config.get("projection_metric") != "none")
    return tensors


def keep_own_tensors(folder: Path) -> None:
    """Leave the base model's own weights out of a file that was just written; PEFT adds embeddings that were resized.

    They would overwrite those of whoever loads the prompt, and are refused there.
    """
    declared, tensors = read_config(folder).get("modules_to_save"), read_tensors(folder)
    kept = {name: tensor for name, tensor in tensors.items() if not foreign_names([name], declared)}
    if len(kept) < len(tensors):
        logger.warning("the base model's own %s are not saved with the prompt", sorted(tensors.keys() - kept.keys()))
        save_file(kept, str(folder / WEIGHTS_FILE), metadata={"format": "pt"})


def write_portable(adapter: Path, destination: Path) -> None:
    """Write a stock copy of an InterpPrompt adapter, with nothing of this package: vectors, and trained heads.

    Plain PEFT loads the adapter itself too, with a warning about the one key it does not know. Either gives the same
    logits where a row has neither left padding nor a BOS or CLS token: stock PEFT puts the prompt in front of those,
    and nowhere else, so a prompt that stands at the end has no such copy.

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
    if not placement_of(config).before_text:
        raise ValueError(
            f"the prompt in {str(adapter)!r} stands at the end of the input, and plain PEFT puts a prompt at its start "
            "only, so there is no copy for it; use the prompt's text (`--to text`)."
        )
    known = checked_tensors(adapter).items()  # trained heads have a path for a name
    tensors = {name: tensor for name, tensor in known if name == "prompt_embeddings" or "." in name}
    stock = PromptTuningConfig(**stock_settings(config))
    with files_together(destination, (WEIGHTS_FILE, CONFIG_FILE)) as folder:
        save_file(tensors, str(folder / WEIGHTS_FILE), metadata={"format": "pt"})
        stock.save_pretrained(str(folder))
