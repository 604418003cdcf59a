"""What a label may be: words that are the same in all rows, a row's own options, or names that the data has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peft_interp.text.rows import Rows
from peft_interp.text.template import check_row_text


def check_words(words: Any) -> None:
    """Refuse label words without an order, fewer than two, or what is no word.

    Raises:
        ValueError: saying which.
    """
    if not isinstance(words, list | tuple):  # of others (sets, say) the order is no label's
        raise ValueError(
            f"`label_words={words!r}` is a {type(words).__name__} and must be a list of at least two words, in the "
            "order of the labels 0, 1, ...; write them as a list."
        )
    if len(words) < 2 or not all(isinstance(word, str) and word.strip() for word in words):
        raise ValueError(f"`label_words={words!r}` must be a list of at least two words, one for each label.")
    for word in words:
        check_row_text(word, "label_words")


def class_names(dataset: Rows, label_column: str) -> list[str]:
    """What the data calls its labels: the names of a `ClassLabel` column, or the strings of another in their order.

    Raises:
        ValueError: labels that have no names.
    """
    names = getattr((getattr(dataset, "features", None) or {}).get(label_column), "names", None)
    if names is None:
        names = sorted({row[label_column] for row in dataset}, key=str)
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"the labels {names} of column {label_column!r} are no names; say what each is called with "
            "`label_words=[...]`."
        )
    return list(names)


def row_options(row: Any, column: str) -> list[str]:
    """A row's own answers to choose from.

    Raises:
        ValueError: no such column, or no list of at least two texts.
    """
    if not isinstance(row, Mapping) or column not in row:
        shown = f"only {sorted(map(str, row))}" if isinstance(row, Mapping) else "but is one text"
        raise ValueError(f"the row has no column {column!r} with its options, {shown}; name it in `options`.")
    found = row[column]
    if not isinstance(found, list | tuple) or len(found) < 2:
        raise ValueError(f"`{column}={found!r}` must be a list of at least two texts to choose from.")
    for option in found:
        check_row_text(option, column)
    return list(found)


def check_told_apart(
    words: Sequence[str], pieces: Sequence[Sequence[int]], first_token: bool, may_begin_alike: bool
) -> None:
    """Refuse answers that cannot be told apart by their tokens.

    Raises:
        ValueError: two have the same, or (unless they may) one is the beginning of another, which could never win.
    """
    known = {tuple(piece) for piece in pieces}
    if len(known) < len(pieces):
        shared = "a first token" if first_token else "all tokens"
        raise ValueError(f"label words {list(words)} share {shared}; they cannot be told apart.")
    if not may_begin_alike and any(a != b and b[: len(a)] == a for a in known for b in known):
        raise ValueError(
            f"of the label words {list(words)} one begins like another, which could never be the likelier one; choose "
            "other words."
        )
