"""Data for the measures, from a file, the Hub, or the package."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import peft_interp.embedded as embedded
from peft_interp.cli.arguments import DEFAULT_TEMPLATES
from peft_interp.inference.max_length import model_max_length
from peft_interp.metrics.reading import read_prompt
from peft_interp.text.data_files import FORMATS, label_indices, load_rows
from peft_interp.text.label_prior import drawn_rows
from peft_interp.text.placement import START, Placement
from peft_interp.text.verbalizer import Verbalizer

_TEXT_COLUMNS = ("sentence", "text")
_SPARE = 4  # tokens left free after a cut: a text cut within a word may be tokenised into more when it is pasted


@dataclass(frozen=True)
class Data:
    """Rows to measure on.

    Attributes:
        name: for the report.
        rows: texts and labels, checked.
        verbalizer: template and label words.
        text_column: the texts' column.
        label_column: the labels' column.
        training: other rows, on which the label prior is estimated; None where none are needed.
    """

    name: str
    rows: Dataset
    verbalizer: Verbalizer
    text_column: str
    label_column: str
    training: Dataset | None = None

    def encode(self, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None) -> Dataset:
        """The rows tokenised, as `Verbalizer.encode_dataset` makes them."""
        return self.verbalizer.encode_dataset(tokenizer, self.rows, self.text_column, self.label_column, max_length)

    def encode_training(
        self, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt_length: int
    ) -> Dataset | None:
        """The training rows tokenised, cut to fit the model beside a prompt of so many tokens; None without any."""
        if self.training is None:
            return None
        limit = model_max_length(base)
        room = None if limit is None else max(0, limit - prompt_length - _SPARE)
        return self.verbalizer.encode_dataset(tokenizer, self.training, self.text_column, self.label_column, room)


def load_data(arguments: Namespace, tokenizer: PreTrainedTokenizerBase, placement: Placement = START) -> Data | None:
    """The data the user named, shuffled always in the same way and cut to `--rows`; None without data.

    Args:
        arguments: of the command line.
        tokenizer: the base model's.
        placement: where the adapter has its prompt.

    Raises:
        ValueError: missing file, column or label words; an unknown ending; a template that has the prompt elsewhere; a
            text or label that cannot be used.
    """
    if arguments.task is None and arguments.data is None:
        if arguments.calibration != "none":
            raise ValueError(
                f"`--calibration {arguments.calibration}` is about answers to rows: name them, `--task` or `--data`."
            )
        return None
    if arguments.task is not None:
        rows, name = embedded.load_data(arguments.task), f"{arguments.task}, embedded in peft_interp"
        if arguments.split not in rows:
            raise ValueError(f"`--split {arguments.split}` is not there; use one of {', '.join(rows)}.")
        rows, name = rows[arguments.split], f"{name} ({arguments.split})"
        words = arguments.label_words or embedded.TASKS[arguments.task].label_words
    else:
        if not arguments.label_words:
            raise ValueError("`--data` needs `--label-words`: one word per label, in the labels' order.")
        rows, name = _own_data(arguments)
        words = arguments.label_words
    settings = {"chat": arguments.chat, "calibration": arguments.calibration}
    verbalizer = Verbalizer(_template(arguments, placement), tuple(words), **settings)
    if verbalizer.placement != placement:
        raise ValueError(
            f"`--template {verbalizer.template!r}` has the prompt {verbalizer.placement.at}, but the "
            f"adapter's `prompt_position={placement.name!r}`; write {{prompt}} {placement.preposition} the text: "
            f"{placement.template!r}, say."
        )
    verbalizer.label_sequences(tokenizer)  # complain before a model is loaded
    text = arguments.text_column or next((c for c in _TEXT_COLUMNS if c in rows.column_names), _TEXT_COLUMNS[0])
    rows = _with_indices(rows, arguments, verbalizer)
    _check_rows(rows, text, arguments.label_column, verbalizer)
    rows = rows.shuffle(seed=0).select(range(min(arguments.rows, len(rows))))
    training = _training_rows(arguments)
    if training is not None:
        training = _with_indices(training, arguments, verbalizer)
        _check_rows(training, text, arguments.label_column, verbalizer)
        training = training.select(drawn_rows(len(training)))
    return Data(name, rows, verbalizer, text, arguments.label_column, training)


def _training_rows(arguments: Namespace) -> Dataset | None:
    """What the label prior is estimated on; None where that needs no rows.

    Raises:
        ValueError: nothing says where they are, or they are the rows that are measured.
    """
    ways, path = arguments.calibration, arguments.calibration_data
    if path and ways in ("none", "content_free"):
        raise ValueError(f"`--calibration-data` is not read with `--calibration {ways}`; say 'batch' or 'fitted'.")
    if ways in ("none", "content_free"):
        return None
    if path:
        return load_rows(Path(path))
    if arguments.split == "train":
        raise ValueError(
            "the rows that are measured are the train split, so it cannot estimate the label prior too; measure "
            "another split, or name other training rows with `--calibration-data`."
        )
    if arguments.task is not None:
        return embedded.load_data(arguments.task)["train"]
    if Path(arguments.data).suffix.lower() in FORMATS or Path(arguments.data).is_file():
        raise ValueError(
            f"`--calibration {ways}` needs training rows, other ones than those measured; name their file with "
            "`--calibration-data`, or use 'content_free', which needs none."
        )
    return datasets.load_dataset(arguments.data, arguments.config, split="train")


def fitting_rows(
    data: Data, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt_length: int
) -> tuple[Dataset, str | None]:
    """The rows tokenised, long texts cut at their end so that prompt and text fit the model's positions.

    Args:
        data: to be tokenised.
        base: the base model.
        tokenizer: its tokenizer.
        prompt_length: positions that the longest prompt takes.

    Returns:
        The rows, and how many were cut, in words; None where none was.

    Raises:
        ValueError: the template alone does not fit.
    """
    rows = data.encode(tokenizer)
    limit = model_max_length(base)
    if limit is None:
        return rows, None
    room = limit - prompt_length
    cut = sum(len(ids) > room for ids in rows["input_ids"])
    if not cut:
        return rows, None
    words = f"{cut} of {len(rows)} texts, at their end, to fit the model's {limit} positions beside the prompt"
    return data.encode(tokenizer, max(0, room - _SPARE)), words


def prompt_length(model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Positions that the prompt takes, as vectors or as its text tokenised again, whichever is more."""
    length = int(model.active_peft_config.num_virtual_tokens)
    try:
        text = read_prompt(model, tokenizer, neighbours=1).text
    except ValueError:  # no vectors among the inputs
        return length
    return max(length, len(tokenizer.encode(text, add_special_tokens=False)))


def _template(arguments: Namespace, placement: Placement) -> str:
    """The user's template, with the prompt at the adapter's place where it names none; else that of the task."""
    given = arguments.template
    if given is None:
        task = embedded.TASKS[arguments.task] if arguments.task is not None else None
        if task is not None and task.placement == placement:
            return task.template
        if placement.marked and not arguments.chat:
            raise ValueError("this prompt stands inside its template, which only you know; name it with `--template`.")
        return DEFAULT_TEMPLATES.get(placement.name, START.template)
    return str(given) if arguments.chat else placement.complete(str(given))


def _with_indices(rows: Dataset, arguments: Namespace, verbalizer: Verbalizer) -> Dataset:
    """The rows with labels of other kinds as indices into the label words."""
    column = arguments.label_column
    if column not in rows.column_names:  # said later
        return rows
    before = rows[column][:]
    labels = label_indices(before, verbalizer.label_words, arguments.label_names)
    return rows if labels == before else rows.remove_columns(column).add_column(column, labels)


def _check_rows(rows: Dataset, text: str, label: str, verbalizer: Verbalizer) -> None:
    """Name the first row that cannot be used; rows are counted from 1, without a header.

    Raises:
        ValueError: a missing column, something that is no text, or a label without a word.
    """
    *texts, _ = asked = verbalizer.source_columns(text, label)
    if missing := {*asked} - set(rows.column_names):
        raise ValueError(
            f"the data set has no column {sorted(missing)}, only {rows.column_names}; name its columns with "
            "`--text-column` and `--label-column`, and others in the template's braces."
        )
    columns = [rows[name][:] for name in asked]
    for number, (*cells, answer) in enumerate(zip(*columns, strict=True), start=1):
        for name, found in zip(texts, cells, strict=True):
            _check_cell(name, number, found)
        try:
            verbalizer.label_index(answer)
        except ValueError as error:
            remedy = " Or name the data's labels, in the words' order, with `--label-names`." if answer else ""
            raise ValueError(f"column {label!r}, row {number}: {error}{remedy}") from None


def _check_cell(column: str, number: int, found: Any) -> None:
    if found is None:
        raise ValueError(
            f"column {column!r}, row {number}: there is no text; fill it in or drop the row (in csv and tsv an empty "
            "cell, 'NA', 'None' or 'null' is read as nothing)."
        )
    if not isinstance(found, str):
        raise ValueError(f"column {column!r}, row {number}: {found!r} is no text; name another with `--text-column`.")


def _own_data(arguments: Namespace) -> tuple[Dataset, str]:
    path = Path(arguments.data)
    if path.suffix.lower() in FORMATS or path.is_file():
        return load_rows(path), path.name
    name = f"{arguments.data} ({arguments.split})"
    return datasets.load_dataset(arguments.data, arguments.config, split=arguments.split), name
