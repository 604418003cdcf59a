"""How a base model is named and loaded: by its hub name; a path of the training machine never leaves it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from peft_interp.tuner.task_types import prompt_task

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).parent / "embedded" / "model"
PLACE_OF_THE_BASE, PLACE_OF_THE_ADAPTER = "FOLDER_OF_THE_BASE_MODEL", "FOLDER_OR_HUB_NAME"  # for the reader to fill in
INSTALL = "pip install ."  # in a checkout of the repository; the package is on no index
_EMBEDDED_PARTS = ("peft_interp", "embedded", "model")
_EMBEDDED_SHOWN = "embedded model of peft_interp"
_LOCAL_NOTE = " (a local folder of the training machine)"


@dataclass(frozen=True)
class BaseName:
    """A base model's name for people.

    Attributes:
        kind: "hub", "embedded" (the model that ships with this package), "local" (a folder) or "unknown".
        name: the hub name, "embedded", the folder's last part, or "" for an unknown one.
    """

    kind: str
    name: str

    @property
    def shown(self) -> str:
        """In words, for a card: no path in it."""
        return {
            "hub": self.name,
            "embedded": _EMBEDDED_SHOWN,
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
    if recorded == _EMBEDDED_SHOWN:
        return BaseName("embedded", EMBEDDED)
    if recorded.endswith(_LOCAL_NOTE):
        return BaseName("local", recorded.removesuffix(_LOCAL_NOTE))
    windows = "\\" in recorded or recorded[1:2] == ":"
    parts = (PureWindowsPath if windows else PurePosixPath)(recorded).parts
    if recorded == EMBEDDED or parts[-3:] == _EMBEDDED_PARTS:
        return BaseName("embedded", EMBEDDED)
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
    """What to give to `from_pretrained` here: the embedded model's folder of this machine, else what was recorded."""
    return str(EMBEDDED_FOLDER) if public_name(recorded).kind == EMBEDDED else recorded


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
        return "from peft_interp import embedded", "base = embedded.load_model()"
    if base.kind == "embedded":
        load = f"from peft_interp import embedded\nfrom transformers import {auto}"
        return load, f"base = {auto}.from_pretrained(embedded.MODEL_PATH{labels})"
    name = base.name if base.kind == "hub" else PLACE_OF_THE_BASE
    return f"from transformers import {auto}", f'base = {auto}.from_pretrained("{name}"{labels})'
