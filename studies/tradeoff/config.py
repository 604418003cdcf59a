"""What a study is made of: model, tasks, splits, budget and the grid of settings, read from one TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from peft_interp import embedded
from peft_interp.metrics.readability_judge import TASK

REPOSITORY = Path(__file__).resolve().parents[2]
EMBEDDED = "embedded"
DTYPES = ("float32", "bfloat16")
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class TaskSettings:
    """One task: where its rows come from and how they are asked.

    Attributes:
        name: as it appears in the results.
        template: `Verbalizer`'s; the prompt stands at the start.
        label_words: the word of label 0, 1, ...
        written: prompts that a person wrote for the task; the first is measured as "hand-written".
        answers: for a generation task, what the model has to write for label 0, 1, ... after the template, up to its
            end mark; empty for classification.
        folder: a folder of few-shot splits inside `data_dir` ("16-13/train.tsv", ..., "test.tsv").
        dataset_name: a data set of the hub, a local folder, or "embedded:sentiment"; 16 rows of each label are drawn.
        dataset_config_name: its configuration.
        text_column: column with the text, of a data set by name.
        label_column: column with the label.
        max_length: most tokens of a row, the prompt not counted.
    """

    name: str
    template: str
    label_words: tuple[str, ...]
    written: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    folder: str | None = None
    dataset_name: str | None = None
    dataset_config_name: str | None = None
    text_column: str = "sentence"
    label_column: str = "label"
    max_length: int = 64

    @property
    def generates(self) -> bool:
        """Whether the model writes its answer; else label words are compared."""
        return bool(self.answers)


@dataclass(frozen=True)
class Study:
    """Everything that decides a result.

    Attributes:
        tasks: what prompts are for.
        settings: the grid: one table for each method, with a list for every value that varies.
        model_name_or_path: the causal LM; "embedded" or "smollm2" for those that the package loads.
        dtype: "float32", or "bfloat16", which takes half the time where the processor is made for it.
        device: where the models run, "cpu" or "cuda"; points of both make one study, since it is no part of their keys.
        tokenizer_name: its tokenizer, if stored elsewhere.
        judge: whose readability score is recorded, as for `measure_scrutability`; "task" for the task's own model.
        second_model: another causal LM, run in fp32, that prompts are moved to as text; None for none.
        data_dir: where the tasks' folders lie.
        splits: few-shot splits; split i is run with seed i.
        seeds: runs on each split.
        budget: model evaluations of a run: prompt-example pairs run forward, a training step on B rows counting 3 B.
        prompt_length: tokens of a prompt.
        test_rows: rows of the test set that every prompt is measured on, the same for all.
        front_size: most prompts of a run, besides the chosen one, that are measured on the test rows.
        faithfulness_rows: test rows on which prompt and text are compared.
        shots: rows of each label in train and dev, for data sets without few-shot splits.
        history: how rules and grid came about, for readers of the verdicts.
    """

    tasks: tuple[TaskSettings, ...]
    settings: tuple[dict[str, Any], ...]
    model_name_or_path: str = EMBEDDED
    dtype: str = "float32"
    device: str = DEVICES[0]
    tokenizer_name: str | None = None
    judge: str = TASK
    second_model: str | None = None
    data_dir: str = str(REPOSITORY.parent / "shared" / "data" / "fewshot16")
    splits: tuple[int, ...] = (13, 21, 42, 87, 100)
    seeds: int = 1
    budget: int = 48_000
    prompt_length: int = 8
    test_rows: int = 1000
    front_size: int = 4
    faithfulness_rows: int = 64
    shots: int = 16
    history: str = field(default="", compare=False)
    source: str = field(default="", compare=False)

    @property
    def model_path(self) -> str:
        """Folder or hub name of the model."""
        return embedded.resolve(self.model_name_or_path)

    @property
    def tokenizer_path(self) -> str:
        """Folder or hub name of the tokenizer."""
        return self.tokenizer_name or self.model_path

    def task(self, name: str) -> TaskSettings:
        """A task by name."""
        return next(task for task in self.tasks if task.name == name)


def portable(path: str) -> str:
    """A model or data set by name, without the folders of the machine it was on."""
    return Path(path).name if Path(path).is_absolute() else path


def read_study(path: Path, **overrides: Any) -> Study:
    """The study that a file describes.

    Args:
        path: a TOML file: values of `Study`, a table `[tasks.<name>]` for each task, `[[settings]]` for each method.
        overrides: values from the command line; None leaves the file's.

    Raises:
        ValueError: names that do not exist, or no task or setting.
    """
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    tasks = tuple(_task(name, values) for name, values in content.pop("tasks", {}).items())
    settings = tuple(content.pop("settings", ()))
    _check_names(content, Study, path)
    if (dtype := content.get("dtype", DTYPES[0])) not in DTYPES:
        raise ValueError(f"{path} has `dtype={dtype!r}`, which does not exist; use {' or '.join(DTYPES)}.")
    if not tasks or not settings:
        raise ValueError(f"{path} needs at least one `[tasks.<name>]` and one `[[settings]]`.")
    if "splits" in content:
        content["splits"] = tuple(content["splits"])
    study = Study(tasks=tasks, settings=settings, source=str(path), **content)
    return replace(study, **{name: value for name, value in overrides.items() if value is not None})


def _task(name: str, values: dict[str, Any]) -> TaskSettings:
    _check_names(values, TaskSettings, f"[tasks.{name}]")
    if ("folder" in values) == ("dataset_name" in values):
        raise ValueError(f"[tasks.{name}] needs `folder` (few-shot splits) or `dataset_name`, one of the two.")
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return TaskSettings(name=name, **{**values, **lists})


def _check_names(values: dict[str, Any], of: Any, where: Path | str) -> None:
    known = {f.name for f in fields(of)} - {"name", "source"}
    if strange := sorted(set(values) - known):
        raise ValueError(f"{where} has {strange}, which do not exist; use {', '.join(sorted(known))}.")
