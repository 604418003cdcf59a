"""What a saved adapter's own files say: read from JSON and safetensors only, so that nothing in a folder can run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from peft_interp.config import PEFT_TYPE_NAME

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
TEXT_FILE = "prompt.txt"
FACTS_FILE = "prompt.json"
REPORT_FILE = "prompt_report.json"
PORTABLE_FOLDER = "portable"
CARD_FILE = "README.md"
_PICKLE = "adapter_model.bin"


def read_json(path: Path) -> dict[str, Any]:
    """An object stored as JSON.

    Raises:
        ValueError: the file is no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); save the adapter again.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not an object; save the adapter again.")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Readable, in UTF-8."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_config(folder: Path) -> dict[str, Any]:
    """`adapter_config.json` as it is, without making a config of it.

    Raises:
        ValueError: there is none, or it is broken.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise ValueError(f"{str(folder)!r} is no adapter folder (it has no {CONFIG_FILE}); name the folder of one.")
    return read_json(folder / CONFIG_FILE)


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


def stock_tensors(folder: Path) -> dict[str, Tensor]:
    """What stock prompt tuning knows: the effective rows, and trained heads beside them."""
    known = read_tensors(folder).items()
    return {name: tensor for name, tensor in known if name == "prompt_embeddings" or "." in name}  # heads have a path


def digest_of(ids: list[int], vectors: Tensor | None) -> str:
    """Recognises a prompt, so that a report of another one is not shown beside it.

    Args:
        ids: its tokens, which are all there is to a prompt of tokens.
        vectors: (prompt, dim) for a soft prompt, whose tokens are only the nearest ones; else None.
    """
    content = json.dumps(ids).encode()
    if vectors is not None:
        content += vectors.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
    return hashlib.sha256(content).hexdigest()[:16]
