"""Rows of text and label from a file of one's own, as a `datasets.Dataset`, and labels of other kinds made indices."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

FORMATS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv"}  # by ending: the builder of `datasets`


def load_rows(path: str | Path) -> Dataset:
    """The rows of a csv, tsv, json or jsonl file, told apart by its ending; csv and tsv begin with the columns' names.

    A tsv's quotation marks are quoting where the whole file can be read so, and part of the text elsewhere (GLUE's
    files). Rows without anything in them are left out.

    Args:
        path: the file; its ending in any case.

    Returns:
        A row for each example, with the file's columns.

    Raises:
        ValueError: another ending, no such file, no rows, or something that cannot be read as what the ending says.
    """
    import datasets  # takes a second, and only those need it who have files

    path = Path(path)
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise ValueError(f"{str(path)!r} must end in {', '.join(FORMATS)}.")
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}; check the path.")
    if not _has_rows(path, FORMATS[ending]):
        raise ValueError(f"{str(path)!r} holds no rows; give it at least one, with a text and a label.")
    options: dict[str, Any] = {}
    if ending == ".tsv":
        options = {"delimiter": "\t", "quoting": csv.QUOTE_MINIMAL if _is_quoted(path) else csv.QUOTE_NONE}
    try:
        rows = datasets.load_dataset(FORMATS[ending], data_files=str(path), split="train", **options)
    except datasets.exceptions.DatasetGenerationError as error:
        raise ValueError(f"{str(path)!r} cannot be read as {ending[1:]}: {error.__cause__ or error}") from None
    cells = zip(*(rows[name][:] for name in rows.column_names), strict=True)
    filled = [i for i, row in enumerate(cells) if any(cell is not None for cell in row)]
    return rows if len(filled) == len(rows) else rows.select(filled)


def _has_rows(path: Path, builder: str) -> bool:
    """Whether there is more than blank lines, a table's header, or an empty JSON list."""
    with path.open("rb") as file:
        lines = list(islice(filter(None, map(bytes.strip, file)), 2))
    return len(lines) > (builder == "csv") and lines != [b"[]"]


def _is_quoted(path: Path) -> bool:
    """Whether every quotation mark of a tsv that begins a cell also ends one, within one row.

    A cell that holds both a line's end and a tab is taken for rows that a stray mark has swallowed.
    """
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.reader(file, delimiter="\t", strict=True)
        try:
            width = len(next(rows))
            return all(
                len(row) in (0, width) and not any("\n" in cell and "\t" in cell for cell in row) for row in rows
            )
        except csv.Error:
            return False


def label_indices(labels: Sequence[Any], label_words: Sequence[str], names: Sequence[str] | None = None) -> list[Any]:
    """Labels as data have them, as indices into the label words where that is certain.

    Args:
        labels: numbers or texts.
        label_words: one for each label.
        names: the data's own labels, in the label words' order: `["entailment", "neutral", "contradiction"]`.

    Returns:
        Indices of: labels among `names`; texts that are the label words themselves, in any case, or numbers; numbers
        1 to N for N label words (without a 0, and with an N, which would have no word). Others are left as they are.

    Raises:
        ValueError: not as many names as words, or a label that is not among them.
    """
    if names is not None:
        return _named(labels, label_words, [str(name) for name in names])
    known = {word.strip().casefold(): i for i, word in enumerate(label_words)}
    if labels and all(isinstance(label, str) for label in labels):
        texts = [label.strip().casefold() for label in labels]
        if all(text in known for text in texts):
            return [known[text] for text in texts]
        if not all(text.isdecimal() for text in texts):
            return list(labels)
        labels = [int(text) for text in texts]
    whole = all(isinstance(label, int | float) and label == label // 1 for label in labels)
    if whole and labels and min(labels) >= 1 and max(labels) == len(label_words):
        return [int(label) - 1 for label in labels]
    return list(labels)


def _named(labels: Sequence[Any], label_words: Sequence[str], names: list[str]) -> list[int]:
    if len(names) != len(label_words) or len({*names}) != len(names):
        raise ValueError(f"the label names {names} must be as many as the label words {list(label_words)}, each once.")
    known = {name: i for i, name in enumerate(names)}
    for number, label in enumerate(labels, start=1):
        if str(label) not in known:
            raise ValueError(f"row {number}: the label {label!r} is not among the label names {names}; name it too.")
    return [known[str(label)] for label in labels]
