"""Rows of a task: the few-shot splits of RLPrompt from a folder, or as many rows of each label of any data set."""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from peft_interp import Verbalizer, embedded
from peft_interp.search.instruct_moves import demonstration
from peft_interp.text.tokenization import encode_after
from studies.tradeoff.config import Study, TaskSettings

Rows = list[tuple[str, int]]
_TEST_SEED = 0


@dataclass(frozen=True)
class TaskData:
    """A task's rows, as text and as the model reads them.

    Attributes:
        settings: the task.
        verbalizer: its template and label words.
        label_ids: the label words' tokens.
        texts: (text, label) by split: "train", "dev", "test".
        rows: the same, encoded, without a prompt.
        gold: the labels.
    """

    settings: TaskSettings
    verbalizer: Verbalizer
    label_ids: list[int]
    texts: dict[str, Rows]
    rows: dict[str, list[dict[str, list[int]]]]
    gold: dict[str, list[int]]


def load_task(study: Study, task: TaskSettings, split: int, tokenizer: Any) -> TaskData:
    """A task's few-shot rows and the fixed test rows."""
    texts = _few_shot_folder(study, task, split) if task.folder else _drawn(study, task, split)
    texts["test"] = fixed_rows(texts["test"], study.test_rows)
    return encoded(task, texts, tokenizer)


def encoded(task: TaskSettings, texts: dict[str, Rows], tokenizer: Any) -> TaskData:
    """Rows as a model with this tokenizer reads them."""
    verbalizer = Verbalizer(task.template, task.label_words)
    label_ids = verbalizer.label_token_ids(tokenizer)
    rows = {}
    for name, pairs in texts.items():
        if task.generates:
            rows[name] = [_with_answer(task, verbalizer, tokenizer, text, label) for text, label in pairs]
        else:
            rows[name] = [verbalizer.encode(tokenizer, text, y, task.max_length, label_ids) for text, y in pairs]
    gold = {name: [label for _, label in pairs] for name, pairs in texts.items()}
    return TaskData(task, verbalizer, label_ids, texts, rows, gold)


def fixed_rows(rows: Rows, count: int) -> Rows:
    """The same `count` rows for every point, mixed: a file may be sorted by label, and some measures take the first."""
    return random.Random(_TEST_SEED).sample(rows, min(count, len(rows)))


def read_tsv(path: Path) -> Rows:
    """A file of text and label with a heading line; AG News calls the first column `text`, the others `sentence`."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    return [(text, int(label)) for text, label in rows[1:]]


def demonstrations(data: TaskData, count: int, seed: int) -> str:
    """Labelled training rows as the model is asked about them, as many of each label, in a drawn order: few-shot.

    Args:
        data: the task.
        count: how many, a multiple of the number of labels.
        seed: which rows, and their order.

    Raises:
        ValueError: not a multiple.
    """
    words = data.settings.label_words
    if count % len(words):
        raise ValueError(f"{count} examples are no multiple of {data.settings.name}'s {len(words)} labels.")
    by_label = sorted(data.texts["train"], key=itemgetter(1))
    asked = [(data.verbalizer.fill(text), words[label]) for text, label in by_label]
    return demonstration(asked, count // len(words), random.Random(seed))


def _few_shot_folder(study: Study, task: TaskSettings, split: int) -> dict[str, Rows]:
    folder = Path(study.data_dir) / str(task.folder)
    own = folder / f"16-{split}"
    if not own.is_dir():
        raise FileNotFoundError(f"{own} does not exist; set `--data_dir` to the folder with the few-shot splits.")
    return {
        "train": read_tsv(own / "train.tsv"),
        "dev": read_tsv(own / "dev.tsv"),
        "test": read_tsv(folder / "test.tsv"),
    }


def _drawn(study: Study, task: TaskSettings, split: int) -> dict[str, Rows]:
    """`shots` rows of each label for train and as many for dev, from a data set's training rows."""
    data = _load(str(task.dataset_name), task.dataset_config_name)
    columns = (task.text_column, task.label_column)
    pool = [(str(row[columns[0]]), int(row[columns[1]])) for row in data["train"]]
    random.Random(split).shuffle(pool)
    train: Rows = []
    dev: Rows = []
    for label in range(len(task.label_words)):
        own = [row for row in pool if row[1] == label]
        if len(own) < 2 * study.shots:
            raise ValueError(f"{task.name} has {len(own)} rows of label {label}; {2 * study.shots} are needed.")
        train, dev = train + own[: study.shots], dev + own[study.shots : 2 * study.shots]
    held_out = data["test" if "test" in data else "validation"]
    test = [(str(row[columns[0]]), int(row[columns[1]])) for row in held_out]
    return {"train": train, "dev": dev, "test": [row for row in test if row[1] >= 0]}


def _load(name: str, config: str | None) -> Any:
    if name.startswith("embedded:"):
        return embedded.load_data(name.removeprefix("embedded:"))
    import datasets

    return datasets.load_dataset(name, config)


def _with_answer(
    task: TaskSettings, verbalizer: Verbalizer, tokenizer: Any, text: str, label: int
) -> dict[str, list[int]]:
    """Text, and the whole answer up to the end mark as labels."""
    answer = [*encode_after(tokenizer, " " + task.answers[label].strip()), tokenizer.eos_token_id]
    room = task.max_length - len(answer)
    filled = verbalizer.encode(tokenizer, text, label, room + 1)["input_ids"][:-1]
    return {
        "input_ids": [*filled, *answer],
        "attention_mask": [1] * (len(filled) + len(answer)),
        "labels": [*[-100] * len(filled), *answer],
    }
