"""Tokenised examples as rows: without padding, split into what stands in front of the prompt and what after it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch

from peft_interp.text.placement import IGNORED, START, Placement, first_labelled

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel

Answers = tuple[tuple[int, int], ...]
DIGEST_LETTERS = 12
_REMEDY = "pass tokenised rows, as `Verbalizer.encode_dataset` makes them"


@dataclass(frozen=True)
class Row:
    """One example without padding and without its prompt.

    Attributes:
        leading: a BOS or CLS that stays in front of the prompt; at most one id.
        ids: the ids after it; for a causal or masked LM, those to be predicted included.
        labels: for a causal or masked LM one for each of `ids`, for an encoder-decoder the decoder's targets, for a
            classifier its class alone; -100 where nothing is predicted.
        start: index into `ids` before which the prompt stands.
        decoder_ids: what an encoder-decoder's decoder is given.
    """

    leading: tuple[int, ...]
    ids: tuple[int, ...]
    labels: tuple[int, ...]
    start: int = 0
    decoder_ids: tuple[int, ...] = ()

    @property
    def length(self) -> int:
        """Number of ids, a leading one included."""
        return len(self.leading) + len(self.ids)

    @property
    def before(self) -> tuple[int, ...]:
        """Ids in front of the prompt, a leading token included."""
        return self.leading + self.ids[: self.start]

    @property
    def after(self) -> tuple[int, ...]:
        """Ids after the prompt."""
        return self.ids[self.start :]

    @property
    def first(self) -> int:
        """Index of the first label other than -100."""
        return first_labelled(self.labels)

    @property
    def last(self) -> int:
        """Index of the last label other than -100; -1 without any."""
        return max((i for i, label in enumerate(self.labels) if label != IGNORED), default=-1)

    @property
    def answer(self) -> tuple[int, ...]:
        """The tokens to be predicted, from the first one on."""
        return self.labels[self.first : self.last + 1]

    def with_answer(self, answer: Sequence[int]) -> Row:
        """The row of a causal LM with another answer in its own one's place, and nothing after it."""
        front = self.ids[: self.first]
        return replace(self, ids=(*front, *answer), labels=(*[IGNORED] * len(front), *answer))

    def compose(self, prompt: Sequence[int], causal: bool, whole: bool) -> tuple[tuple[int, ...], Answers]:
        """The row of a causal or masked LM with a prompt in its place.

        Args:
            prompt: ids.
            causal: a causal LM predicts a token from the position in front of it, a masked LM at the token itself.
            whole: all labelled tokens; else the first one.

        Returns:
            The ids (for a causal LM up to what predicts the last answer), and for every answer the position whose
            output predicts it and its label.
        """
        ids, shift, first = (*self.before, *prompt, *self.after), 1 if causal else 0, self.first
        answers = []
        for index, label in enumerate(self.labels):
            if label == IGNORED or (not whole and index > first):
                continue
            place = len(self.leading) + index + (len(prompt) if index >= self.start else 0) - shift
            if place >= 0:  # nothing predicts the first token of a sequence
                answers.append((place, label))
        stop = answers[-1][0] + 1 if causal and answers else len(ids)
        return ids[:stop], tuple(answers)


class Rows(Protocol):
    """Examples as a user has them: a `datasets.Dataset` or a sequence of dicts."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Mapping[str, Any]]: ...

    def __getitem__(self, place: int, /) -> Mapping[str, Any]: ...


def read_rows(
    rows: Rows,
    leading_ids: Sequence[int] = (),
    placement: Placement = START,
    task: str = "CAUSAL_LM",
    base: PreTrainedModel | None = None,
    every_row_labelled: bool = False,
) -> list[Row]:
    """Tokenised examples as rows.

    Args:
        rows: a `datasets.Dataset` or a sequence of dicts with `input_ids`, `labels` and, where padded,
            `attention_mask`, as any Trainer script for this task uses them.
        leading_ids: ids that stay in front of the prompt where a row begins with one of them.
        placement: where the prompt stands.
        task: "CAUSAL_LM" (or a masked LM, whose rows look the same), "SEQ_2_SEQ_LM" or "SEQ_CLS".
        base: the base model of an encoder-decoder, which makes its decoder's input from the labels.
        every_row_labelled: refuse a row without a label; else only data in which no row has one.

    Returns:
        One for each example.

    Raises:
        ValueError: no rows, a missing column, labels that do not fit or are missing, or a row without any token.
    """
    found = [_read_row(i, row, leading_ids, placement, task, base) for i, row in enumerate(examples(rows))]
    if not found:
        raise ValueError("`rows` is empty; pass at least one example.")
    bare = [i for i, row in enumerate(found) if all(label == IGNORED for label in row.labels)]
    if every_row_labelled and bare:
        raise ValueError(f"row {bare[0]} has no label other than -100; mark the tokens that are to be predicted.")
    if len(bare) == len(found):
        raise ValueError("no row of `rows` has a label other than -100, so there is no task to measure.")
    return found


def examples(rows: Rows) -> Iterator[Mapping[str, Any]]:
    """The user's rows one by one.

    Raises:
        ValueError: what is no collection of rows, or a row that is not tokenised.
    """
    if isinstance(rows, str | Mapping) or not (hasattr(rows, "__iter__") or hasattr(rows, "__getitem__")):
        raise ValueError(f"`rows` is a {type(rows).__name__} and must be a data set or a list of dicts; {_REMEDY}.")
    check_countable(rows, "rows")
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(f"row {number} is a {type(row).__name__} and must be a dict; {_REMEDY}.")
        if missing := {"input_ids", "labels"} - set(row):
            raise ValueError(f"row {number} has no column {sorted(missing)}, only {sorted(row)}; {_REMEDY}.")
        yield row


def check_countable(rows: object, name: str) -> None:
    """Refuse what can be read only once or has no order: streams, generators, sets, splits by name.

    Raises:
        ValueError: saying its `name` and how to make rows of it.
    """
    if not isinstance(rows, set | frozenset | Mapping) and hasattr(rows, "__len__"):
        return
    raise ValueError(
        f"`{name}` is a {type(rows).__name__}, which is not read in one order as often as needed; give a data set or a "
        "list: of a stream `Dataset.from_list(list(stream.take(1000)))`, of several splits one."
    )


def column_names(dataset: Dataset) -> list[str]:
    """Names of a data set's columns; of a stream that does not know them, those of its first row.

    Raises:
        ValueError: several splits, or something that is no data set.
    """
    if isinstance(dataset, Mapping):
        raise ValueError(f"the data set has the splits {sorted(dataset)}; encode each, `dataset['train']` say.")
    if not hasattr(dataset, "map"):
        raise ValueError(
            f"`dataset` is a {type(dataset).__name__} and must be a data set; make one with "
            "`datasets.Dataset.from_list(rows)`, or encode each row with `encode`."
        )
    columns = dataset.column_names
    return list(columns) if columns is not None else list(next(iter(dataset), {}))


def without_padding(row: Mapping[str, Any], number: int = 0, token_labels: bool = True) -> dict[str, list[int]]:
    """One example's `input_ids`, `attention_mask` and `labels` as lists, without what its mask leaves out at the ends.

    Args:
        row: the example.
        number: what errors call it.
        token_labels: there is one label for each token; others are left as they are.

    Raises:
        ValueError: columns of different lengths.
    """
    ids, labels = plain_ids(row["input_ids"]), plain_ids(row["labels"])
    mask = [1] * len(ids) if row.get("attention_mask") is None else plain_ids(row["attention_mask"])
    if len(mask) != len(ids) or (token_labels and len(labels) != len(ids)):
        raise ValueError(
            f"row {number} has {len(ids)} `input_ids`, {len(mask)} of `attention_mask` and {len(labels)} `labels`; "
            "they must be equally many."
        )
    attended = [i for i, value in enumerate(mask) if value]
    kept = range(attended[0], attended[-1] + 1) if attended else range(0)
    return {
        "input_ids": [ids[i] for i in kept],
        "attention_mask": [int(mask[i] != 0) for i in kept],
        "labels": [labels[i] for i in kept] if token_labels else labels,
    }


def row_digest(row: Mapping[str, Any]) -> str:
    """What a row asks, as 12 letters: its tokens without padding and without the answer. Twelve of a sha256 are enough
    to tell rows apart, and say nothing to somebody who does not have the row.
    """
    plain = without_padding(row)
    columns = zip(plain["input_ids"], plain["attention_mask"], plain["labels"], strict=True)
    asked = [token for token, attended, label in columns if attended and label == IGNORED]
    return hashlib.sha256(" ".join(map(str, asked)).encode()).hexdigest()[:DIGEST_LETTERS]


def plain_ids(values: Any) -> list[int]:
    """A column of a row as a list, whether it is one, an array, a tensor (of no dimension too) or a number."""
    values = values.tolist() if hasattr(values, "tolist") else values
    return [int(x) for x in values] if isinstance(values, Sequence) else [int(values)]


def _read_row(
    number: int,
    row: Mapping[str, Any],
    leading_ids: Sequence[int],
    placement: Placement,
    task: str,
    base: PreTrainedModel | None,
) -> Row:
    token_labels = task == "CAUSAL_LM"
    read = without_padding(row, number, token_labels)
    ids, labels, mask = read["input_ids"], read["labels"], read["attention_mask"]
    if 0 in mask:  # what marks a place, or padding among the text
        ids = [i for i, attended in zip(ids, mask, strict=True) if attended]
        labels = [i for i, attended in zip(labels, mask, strict=True) if attended] if token_labels else labels
    if not ids:
        raise ValueError(f"row {number} has no token; leave empty rows out.")
    if task == "SEQ_CLS" and len(labels) != 1:
        raise ValueError(
            f"row {number} has {len(labels)} `labels`; a classifier's row has one, the number of its class. "
            "Multi-label classification is not compared."
        )
    lead = 1 if len(ids) > 1 and ids[0] in leading_ids else 0
    leading, ids = tuple(ids[:lead]), ids[lead:]
    labels = labels[lead:] if token_labels else labels
    try:
        start = placement.index(labels if token_labels else [], mask[lead:])
    except ValueError as error:
        raise ValueError(f"row {number}: {error}") from None
    decoder = _decoder_ids(base, labels) if task == "SEQ_2_SEQ_LM" else []
    return Row(leading, tuple(ids), tuple(labels), start, tuple(decoder))


def _decoder_ids(base: PreTrainedModel | None, labels: list[int]) -> list[int]:
    prepare: Callable[..., Tensor] = cast(Any, base).prepare_decoder_input_ids_from_labels
    shifted: list[int] = prepare(torch.tensor([labels]))[0].tolist()
    return shifted
