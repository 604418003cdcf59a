"""Rows of text and label from a file of one's own, as a `datasets.Dataset`."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset

FORMATS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv"}  # by ending: the builder of `datasets`


def load_rows(path: str | Path) -> Dataset:
    """The rows of a csv, tsv, json or jsonl file, told apart by its ending; csv and tsv begin with the columns' names.

    Args:
        path: the file.

    Returns:
        A row for each example, with the file's columns.

    Raises:
        ValueError: another ending, no such file, no rows, or something that cannot be read as what the ending says.
    """
    import datasets  # takes a second, and only those need it who have files

    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"{str(path)!r} must end in {', '.join(FORMATS)}.")
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}; check the path.")
    if not _has_rows(path):
        raise ValueError(f"{str(path)!r} holds no rows; give it at least one, with a text and a label.")
    options = {"delimiter": "\t"} if path.suffix == ".tsv" else {}
    try:
        return datasets.load_dataset(FORMATS[path.suffix], data_files=str(path), split="train", **options)
    except datasets.exceptions.DatasetGenerationError as error:
        raise ValueError(f"{str(path)!r} cannot be read as {path.suffix[1:]}: {error.__cause__ or error}") from None


def _has_rows(path: Path) -> bool:
    """Whether there is more than blank lines, a table's header, or an empty JSON list."""
    with path.open("rb") as file:
        lines = list(islice(filter(None, map(bytes.strip, file)), 2))
    return len(lines) > (FORMATS[path.suffix] == "csv") and lines != [b"[]"]
