"""How a base model is named in public: by its hub name; a path of the training machine never leaves it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).parents[1] / "embedded" / "model"
_EMBEDDED_PARTS = ("peft_interp", "embedded", "model")


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
            "embedded": "embedded model of peft_interp",
            "local": f"{self.name} (a local folder of the training machine)",
            "unknown": "unknown",
        }[self.kind]


def public_name(recorded: str | None) -> BaseName:
    """What `base_model_name_or_path` may be called in public.

    Args:
        recorded: a hub name, a path on this or another machine, or nothing.
    """
    if not recorded:
        return BaseName("unknown", "")
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
