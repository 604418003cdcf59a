"""The user's data as rows for the measures: without padding, split into leading token and body."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from peft_interp.metrics.text_rows import Row

_REMEDY = "pass tokenised rows, as `Verbalizer.encode_dataset` makes them"
COMPARED_TASKS = ("CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS")


def task_of(config: Any) -> str:
    """The adapter's task type.

    Raises:
        ValueError: one that the measures cannot compare.
    """
    task = getattr(config.task_type, "value", config.task_type)
    if task not in COMPARED_TASKS:
        raise ValueError(
            f"`task_type={task!r}` is not compared with its text; use {', '.join(COMPARED_TASKS)}. `read_prompt` "
            "reads the text of any task's prompt."
        )
    return str(task)


def read_rows(rows: Any, task: str, base: Any, leading_ids: Sequence[int] = (), position: str = "start") -> list[Row]:
    """Pre-tokenised examples as rows.

    Args:
        rows: a `datasets.Dataset` or a sequence of dicts with `input_ids`, `labels` and, where padded,
            `attention_mask`, as any Trainer script for this task uses them.
        task: one of `COMPARED_TASKS`.
        base: the base model; an encoder-decoder makes its decoder's input from the labels.
        leading_ids: ids that stay in front of the prompt where a row begins with one of them.
        position: "start" or "end" (right before the first labelled token).

    Returns:
        One for each example.

    Raises:
        ValueError: no rows, a missing column, labels that do not fit, or a row without any token.
    """
    found = [_read(i, row, task, base, leading_ids, position) for i, row in enumerate(examples(rows))]
    if not found:
        raise ValueError("`rows` is empty; pass at least one example.")
    if all(label == -100 for row in found for label in row.labels):
        raise ValueError("no row of `rows` has a label other than -100, so there is no task to measure.")
    return found


def examples(rows: Any) -> Iterator[Mapping[str, Any]]:
    """The user's rows one by one.

    Raises:
        ValueError: what is no collection of rows, or a row that is not tokenised.
    """
    if isinstance(rows, str | Mapping) or not (hasattr(rows, "__iter__") or hasattr(rows, "__getitem__")):
        raise ValueError(f"`rows` is a {type(rows).__name__} and must be a data set or a list of dicts; {_REMEDY}.")
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(f"row {number} is a {type(row).__name__} and must be a dict; {_REMEDY}.")
        if missing := {"input_ids", "labels"} - set(row):
            raise ValueError(f"row {number} has no column {sorted(missing)}, only {sorted(row)}; {_REMEDY}.")
        yield row


def _read(number: int, row: Any, task: str, base: Any, leading_ids: Sequence[int], position: str) -> Row:
    ids = plain_ids(row["input_ids"])
    labels = plain_ids(row["labels"])
    mask = plain_ids(row["attention_mask"]) if row.get("attention_mask") is not None else [1] * len(ids)
    if len(mask) != len(ids) or (task == "CAUSAL_LM" and len(labels) != len(ids)):
        raise ValueError(
            f"row {number} has {len(ids)} `input_ids`, {len(mask)} of `attention_mask` and {len(labels)} `labels`; "
            "they must be equally many."
        )
    attended = [i for i, on in enumerate(mask) if on]
    if not attended:
        raise ValueError(f"row {number} has no token; leave empty rows out.")
    ids = [ids[i] for i in attended]
    lead = 1 if len(ids) > 1 and ids[0] in leading_ids else 0
    if task == "CAUSAL_LM":
        labels = [labels[i] for i in attended][lead:]
        start = next((j for j, x in enumerate(labels) if x != -100), len(labels)) if position == "end" else 0
        return Row(ids[:lead], ids[lead:], labels, start)
    decoder = _decoder_ids(base, labels) if task == "SEQ_2_SEQ_LM" else []
    if task == "SEQ_CLS" and len(labels) != 1:
        raise ValueError(
            f"row {number} has {len(labels)} `labels`; a classifier's row has one, the number of its class. "
            "Multi-label classification is not compared."
        )
    return Row(ids[:lead], ids[lead:], labels, 0, decoder)


def _decoder_ids(base: Any, labels: list[int]) -> list[int]:
    shifted: list[int] = base.prepare_decoder_input_ids_from_labels(torch.tensor([labels]))[0].tolist()
    return shifted


def plain_ids(values: Any) -> list[int]:
    """A column of a row as a list, whether it is one, an array, a tensor (of no dimension too) or a number."""
    values = values.tolist() if hasattr(values, "tolist") else values
    return [int(x) for x in values] if isinstance(values, Sequence) else [int(values)]
