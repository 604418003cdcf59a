"""Data for the measures, from a file, the Hub, or the package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft_interp.embedded as embedded
from peft_interp.cli.arguments import DEFAULT_TEMPLATE
from peft_interp.verbalizer import Verbalizer

_KINDS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv"}
_TEXT_COLUMNS = ("sentence", "text")


@dataclass(frozen=True)
class Data:
    """Rows to measure on.

    Attributes:
        name: for the report.
        rows: tokenised, as `Verbalizer.encode_dataset` makes them.
        verbalizer: template and label words.
    """

    name: str
    rows: Any
    verbalizer: Verbalizer


def load_data(arguments: Any, tokenizer: Any) -> Data | None:
    """The data the user named, shuffled always in the same way and cut; None without data.

    Raises:
        ValueError: missing file, column or label words; an unknown ending.
    """
    if arguments.task is None and arguments.data is None:
        return None
    if arguments.task is not None:
        default = embedded.TASKS[arguments.task]
        rows, name = embedded.load_data(arguments.task), f"{arguments.task}, embedded in peft_interp"
        if arguments.split not in rows:
            raise ValueError(f"`--split {arguments.split}` is not there; use one of {', '.join(rows)}.")
        rows, name = rows[arguments.split], f"{name} ({arguments.split})"
        words, template = arguments.label_words or default.label_words, arguments.template or default.template
    else:
        if not arguments.label_words:
            raise ValueError("`--data` needs `--label-words`: one word per label, in the labels' order.")
        rows, name = _own_data(arguments)
        words, template = arguments.label_words, arguments.template or DEFAULT_TEMPLATE
    verbalizer = Verbalizer(template, tuple(words))
    rows = rows.shuffle(seed=0).select(range(min(arguments.rows, len(rows))))
    column = arguments.text_column or next((c for c in _TEXT_COLUMNS if c in rows.column_names), _TEXT_COLUMNS[0])
    return Data(name, verbalizer.encode_dataset(rows, tokenizer, column, arguments.label_column), verbalizer)


def _own_data(arguments: Any) -> tuple[Any, str]:
    import datasets

    path = Path(arguments.data)
    if path.suffix not in _KINDS:
        if path.is_file():
            raise ValueError(f"{str(path)!r} must end in {', '.join(_KINDS)}.")
        name = f"{arguments.data} ({arguments.split})"
        return datasets.load_dataset(arguments.data, arguments.config, split=arguments.split), name
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}; check the path.")
    options = {"delimiter": "\t"} if path.suffix == ".tsv" else {}
    try:
        rows = datasets.load_dataset(_KINDS[path.suffix], data_files=str(path), split="train", **options)
    except datasets.exceptions.DatasetGenerationError as error:
        raise ValueError(f"{str(path)!r} cannot be read as {path.suffix[1:]}: {error.__cause__ or error}") from None
    return rows, path.name
