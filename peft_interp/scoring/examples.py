"""The labelled examples that prompts are scored on, from whatever data set a Trainer script has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peft_interp.records import short_repr
from peft_interp.text.placement import IGNORED, Placement
from peft_interp.text.rows import Row, Rows, check_countable, read_rows, without_padding
from peft_interp.text.tokenization import adds_bos, ids_around_text
from peft_interp.text.verbalizer import Verbalizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MODEL_COLUMNS = ("input_ids", "attention_mask", "labels", "token_type_ids")


@dataclass(frozen=True, repr=False)
class Examples:
    """Examples in the form that rewards need.

    Attributes:
        rows: `input_ids` and `labels` of each, without padding; empty where the data has no labels.
        inputs: the text of each, for reward functions.
        columns: every other column of the data set, for reward functions.
        gold: (examples,) index of the right label word, or the right one of a row's options; None without either.
        choices: for each example the tokens of its possible answers, where they are scored as sequences; None where
            each label word is one token, and without labels.
    """

    rows: list[dict[str, list[int]]]
    inputs: list[str]
    columns: dict[str, list[Any]]
    gold: Tensor | None = None
    choices: list[list[list[int]]] | None = None

    def __repr__(self) -> str:
        known = {"examples": len(self), "labelled": len(self.rows), "columns": list(self.columns)}
        return short_repr("Examples", **known, first=self.inputs[0] if self.inputs else None)

    def __len__(self) -> int:
        return len(self.inputs)

    def subset(self, places: Sequence[int]) -> Examples:
        """Only the examples at these places."""
        return replace(
            self,
            rows=[self.rows[i] for i in places] if self.rows else [],
            inputs=[self.inputs[i] for i in places],
            columns={name: [values[i] for i in places] for name, values in self.columns.items()},
            gold=None if self.gold is None else self.gold[list(places)],
            choices=None if self.choices is None else [self.choices[i] for i in places],
        )


def read_examples(
    tokenizer: PreTrainedTokenizerBase,
    dataset: Rows,
    verbalizer: Verbalizer | None = None,
    text_column: str = "sentence",
    label_column: str = "label",
    max_length: int | None = None,
    what: str = "train_dataset",
    masked: bool = False,
) -> Examples:
    """A data set as `Examples`.

    Rows with `input_ids` and `labels` are taken as they are, as for any causal-LM Trainer script. With a verbalizer,
    rows of text and label are put into its template first. Rows without labels are for reward functions alone.

    Args:
        tokenizer: the task model's.
        dataset: a `datasets.Dataset` or a list of dicts.
        verbalizer: template and label words, or None.
        text_column: column with the template's `{text}`.
        label_column: column with the label, 0, 1, ...
        max_length: most tokens of a row the verbalizer encodes, the prompt not counted.
        what: the data set's name in errors.
        masked: rows of text and label are for a masked LM, with the mask where a causal LM's answer stands.

    Raises:
        ValueError: no rows, rows without any label, labels that are no label word, a tokenizer without a mask, or
            answers of several tokens for a masked LM, which has one mask.
    """
    check_countable(dataset, what)
    raw = [dict(row) for row in dataset]
    if not raw:
        raise ValueError(f"`{what}` is empty; prompts are scored on examples, give at least one.")
    columns = {name: [row.get(name) for row in raw] for name in raw[0] if name not in _MODEL_COLUMNS}
    rows: list[dict[str, list[int]]] = []
    if "input_ids" in raw[0] and "labels" in raw[0]:
        rows = [without_padding(row, number) for number, row in enumerate(raw)]
    elif verbalizer is not None:
        verbalizer.check_columns(sorted(raw[0]), text_column, label_column, f"`{what}`")
        given = [verbalizer.row_of(row, text_column) for row in raw]
        known = verbalizer.label_sequences(tokenizer) if verbalizer.label_words else None
        rows = [verbalizer.encode(tokenizer, row, row[label_column], max_length, known) for row in given]
        rows = [_as_masked(row, tokenizer) for row in rows] if masked else rows
    for i, row in enumerate(rows):
        if all(label == IGNORED for label in row["labels"]):
            raise ValueError(f"row {i} of `{what}` has no label (all are -100); drop it or give it one.")
    choices = None if verbalizer is None or not rows else _choices(raw, verbalizer, tokenizer, what)
    gold = None if choices is None else _gold(rows, choices, tokenizer, what)
    single = choices is not None and verbalizer is not None and verbalizer.scored_ids(tokenizer) is not None
    inputs = _inputs(raw, rows, tokenizer, text_column)
    return Examples(rows, inputs, columns, gold, None if single else choices)


def rows_to_answer(
    examples: Examples, tokenizer: PreTrainedTokenizerBase, placement: Placement, leading_ids: Sequence[int] = ()
) -> list[Row]:
    """What the task model reads beside a prompt before it writes: labelled rows up to their labels, or the texts.

    Args:
        examples: labelled or not.
        tokenizer: the task model's; its BOS is put in front of a text where it would do so.
        placement: where the prompt stands. After a prompt a text begins with a blank, which is added where it is
            missing.
        leading_ids: tokens that stay in front of a prompt at the start.
    """
    if examples.rows:
        return read_rows(examples.rows, leading_ids, placement, every_row_labelled=True)
    bos = (tokenizer.bos_token_id,) if adds_bos(tokenizer) else ()
    apart = [
        f" {text}" if placement.before_text and text and not text[0].isspace() else text for text in examples.inputs
    ]
    found = [tuple(placement.encode_text(tokenizer, text)) for text in apart]
    labels = [(IGNORED,) * len(ids) for ids in found]
    return [Row(bos, ids, own, placement.index(own)) for ids, own in zip(found, labels, strict=True)]


def padded(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Rows of different lengths as one batch, padded on the right; only what the model reads.

    Args:
        rows: `input_ids`, and perhaps `labels` and `token_type_ids`.

    Returns:
        For each name (rows, longest), and an `attention_mask`; labels are -100 where there is padding.
    """
    columns = {name: [torch.as_tensor(row[name]) for row in rows] for name in _MODEL_COLUMNS if name in rows[0]}
    columns.setdefault("attention_mask", [torch.ones_like(ids) for ids in columns["input_ids"]])
    fill = {"labels": IGNORED}
    return {
        name: torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=fill.get(name, 0))
        for name, values in columns.items()
    }


def _as_masked(row: dict[str, list[int]], tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """`text answer` as a masked LM reads it: `<s> text <mask> </s>`, the answer in the labels only."""
    if sum(label != IGNORED for label in row["labels"]) != 1:
        raise ValueError(
            "the task model is a masked language model, which answers at one mask, and a label is more than one token; "
            "choose other words, or say `first_token=True`."
        )
    if tokenizer.mask_token_id is None:
        raise ValueError(
            "the task model is a masked language model, but its tokenizer names no mask token to ask for the answer "
            "at; pass the masked LM's own tokenizer as `processing_class`."
        )
    *text, answer = row["input_ids"]
    attended = row["attention_mask"][: len(text)]  # 0 where it marks the prompt's place
    front, after = ids_around_text(tokenizer)
    if text[:1] == [tokenizer.bos_token_id]:
        text, attended = text[1:], attended[1:]
    ids = [*front, *text, tokenizer.mask_token_id, *after]
    mask = [*[1] * len(front), *attended, 1, *[1] * len(after)]
    labels = [IGNORED] * (len(front) + len(text)) + [answer] + [IGNORED] * len(after)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _choices(
    raw: list[dict[str, Any]], verbalizer: Verbalizer, tokenizer: PreTrainedTokenizerBase, what: str
) -> list[list[list[int]]] | None:
    """The possible answers of each row; None where any text may be one."""
    if verbalizer.label_words:
        return [verbalizer.label_sequences(tokenizer)] * len(raw)
    if verbalizer.options is None:
        return None
    if verbalizer.options not in raw[0]:
        raise ValueError(
            f"`{what}` has no column {verbalizer.options!r} with each row's options, only {sorted(raw[0])}; pass the "
            "rows as they are, which the trainer encodes, or keep that column."
        )
    return [verbalizer.label_sequences(tokenizer, row) for row in raw]


def _gold(
    rows: list[dict[str, list[int]]], choices: list[list[list[int]]], tokenizer: PreTrainedTokenizerBase, what: str
) -> Tensor:
    answers = [[label for label in row["labels"] if label != IGNORED] for row in rows]
    for answer, known in zip(answers, choices, strict=True):
        if answer not in known:
            raise ValueError(
                f"`{what}` has labels {tokenizer.convert_ids_to_tokens(answer)} that are none of the label words "
                f"{tokenizer.batch_decode(known)}; encode it with the same verbalizer."
            )
    return torch.tensor([known.index(answer) for answer, known in zip(answers, choices, strict=True)])


def _inputs(
    raw: list[dict[str, Any]], rows: list[dict[str, list[int]]], tokenizer: PreTrainedTokenizerBase, column: str
) -> list[str]:
    """What the model reads besides the prompt: the text column, else the unlabelled tokens."""
    if column in raw[0]:
        return [str(row[column]) for row in raw]
    return asked_texts(rows, tokenizer) if rows else [""] * len(raw)


def asked_texts(rows: Sequence[Mapping[str, list[int]]], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Rows as the model is asked about them: their unlabelled tokens, as text."""
    unlabelled = [
        [i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label == IGNORED] for row in rows
    ]
    return tokenizer.batch_decode(unlabelled, skip_special_tokens=True, clean_up_tokenization_spaces=False)
