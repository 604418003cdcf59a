"""Where a command may write: found out before anything is measured, so that no minutes end in an error."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile

from peft_interp.hub.adapter_files import CARD_FILE, CONFIG_FILE, FACTS_FILE, REPORT_FILE, TEXT_FILE, WEIGHTS_FILE
from peft_interp.hub.saving import TOKENIZER_FILES

_ADAPTERS_OWN = (CONFIG_FILE, WEIGHTS_FILE, TEXT_FILE, FACTS_FILE, REPORT_FILE, CARD_FILE, *TOKENIZER_FILES)


def check_output_files(outputs: Mapping[str, Path], data: str | None = None) -> None:
    """Refuse files that cannot be written, or that would overwrite each other or the data; nothing is left behind.

    Args:
        outputs: the file to write, by its option.
        data: the file that is read with `--data`, if it is one.

    Raises:
        ValueError: two options with one file, the data itself, a folder, a missing folder, or no right to write.
    """
    taken = {Path(data).expanduser().resolve(): "--data"} if data else {}
    for option, path in outputs.items():
        place = path.resolve()
        if place in taken:
            raise ValueError(f"`{taken[place]}` and `{option}` both name {str(path)!r}; give each a file of its own.")
        taken[place] = option
        if path.is_dir():
            raise ValueError(f"`{option} {path}` is a folder; name a file in it, {str(path / 'NAME')!r}.")
        if not path.parent.is_dir():
            raise ValueError(f"there is no folder {str(path.parent)!r} to write {path.name!r} into; make it first.")
        if path.exists() and not os.access(path, os.W_OK):
            raise ValueError(f"`{option} {path}` may not be written; name another file, or change its rights.")
        if not path.exists():
            check_output_folder(option, path.parent)


def check_output_folder(option: str, folder: Path) -> None:
    """Refuse a folder in which no file can be made; where it is missing, the nearest one above it counts.

    Raises:
        ValueError: it is a file, or there is no right or room to write.
    """
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise ValueError(f"`{option}` wants to write into {str(place)!r}, which is a file; name a folder.")
    try:
        with TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise ValueError(
            f"`{option}` cannot write into {str(place)!r} ({error.strerror or error}); name another place, or "
            "change its rights."
        ) from None


def check_not_adapters(outputs: Mapping[str, Path], adapter: Path) -> None:
    """Refuse to overwrite the files that make up the adapter.

    Args:
        outputs: the file to write, by its option.
        adapter: its folder.

    Raises:
        ValueError: one of them.
    """
    for option, path in outputs.items():
        if path.name in _ADAPTERS_OWN and path.resolve().parent == adapter.resolve():
            raise ValueError(
                f"`{option} {path}` is one of the adapter's own files; name another (`read --attach` puts a report "
                "beside an adapter and into its card)."
            )
