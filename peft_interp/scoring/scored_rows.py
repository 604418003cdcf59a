"""Encoded examples taken apart: what stands before the prompt, what after it, and what is to be predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Position = Literal["start", "end"]
Answers = tuple[tuple[int, int], ...]
IGNORED = -100


@dataclass(frozen=True)
class ScoredRow:
    """One example without its prompt.

    Attributes:
        leading: BOS or CLS in front, or nothing; a prompt at the start goes after it.
        ids: the other tokens, those to be predicted included.
        labels: aligned with `ids`, -100 where nothing is to be predicted.
    """

    leading: tuple[int, ...]
    ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def first(self) -> int:
        """Where in `ids` the first labelled token stands."""
        return next(i for i, label in enumerate(self.labels) if label != IGNORED)

    @property
    def last(self) -> int:
        """Where in `ids` the last labelled token stands."""
        return max(i for i, label in enumerate(self.labels) if label != IGNORED)

    def before(self, position: Position) -> tuple[int, ...]:
        """Tokens in front of the prompt."""
        return self.leading if position == "start" else self.leading + self.ids[: self.first]

    def after(self, position: Position) -> tuple[int, ...]:
        """Tokens after the prompt."""
        return self.ids if position == "start" else self.ids[self.first :]


def read_rows(rows: Sequence[Mapping[str, Any]], leading_ids: Sequence[int] = ()) -> list[ScoredRow]:
    """Take encoded examples apart.

    Args:
        rows: `input_ids` and `labels`, and `attention_mask` where there is padding, which is dropped.
        leading_ids: tokens that count as leading where a row begins with one.

    Raises:
        ValueError: no rows, lengths that differ within a row, or a row without any label.
    """
    if not rows:
        raise ValueError("`rows=[]` holds nothing to score; give at least one encoded example.")
    return [_read_row(number, row, leading_ids) for number, row in enumerate(rows)]


def _read_row(number: int, row: Mapping[str, Any], leading_ids: Sequence[int]) -> ScoredRow:
    ids, labels = [int(i) for i in row["input_ids"]], [int(i) for i in row["labels"]]
    mask = [bool(i) for i in row["attention_mask"]] if "attention_mask" in row else [True] * len(ids)
    if not len(ids) == len(labels) == len(mask):
        raise ValueError(f"row {number} has {len(ids)} `input_ids` but {len(labels)} `labels`; they must be aligned.")
    ids = [i for i, kept in zip(ids, mask, strict=True) if kept]
    labels = [i for i, kept in zip(labels, mask, strict=True) if kept]
    lead = 1 if ids and ids[0] in set(leading_ids) else 0
    if all(label == IGNORED for label in labels[lead:]):
        raise ValueError(f"row {number} has no label other than -100; mark the tokens that are to be predicted.")
    return ScoredRow(tuple(ids[:lead]), tuple(ids[lead:]), tuple(labels[lead:]))


def compose(
    row: ScoredRow, prompt: Sequence[int], position: Position, causal: bool, whole: bool
) -> tuple[tuple[int, ...], Answers]:
    """The plain row with its prompt.

    Args:
        row: the example.
        prompt: ids.
        position: where the prompt goes.
        causal: a causal LM predicts a token from the position in front of it, a masked LM at the token itself.
        whole: all labelled tokens; else the first one.

    Returns:
        The ids (for a causal LM up to what predicts the last answer), and for every answer the position whose output
        predicts it and its label.
    """
    before, shift = row.before(position), 1 if causal else 0
    ids = (*before, *prompt, *row.after(position))
    split = len(before) - len(row.leading)
    answers = []
    for index, label in enumerate(row.labels):
        if label == IGNORED or (not whole and index > row.first):
            continue
        place = len(row.leading) + index + (len(prompt) if index >= split else 0) - shift
        if place >= 0:  # nothing predicts the first token of a sequence
            answers.append((place, label))
    stop = answers[-1][0] + 1 if causal and answers else len(ids)
    return ids[:stop], tuple(answers)
