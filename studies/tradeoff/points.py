"""The grid: one point for every task, split, seed and setting. A point is a run that can be done by itself."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from studies.tradeoff.config import DTYPES, Study

_RESERVED = ("method", "family", "tasks", "times_budget", "seeds")


@dataclass(frozen=True)
class Point:
    """One run.

    Attributes:
        task: name of the task.
        split: few-shot split.
        seed: of whatever is drawn.
        method: which function of `methods.METHODS` runs it.
        family: what it is compared as: settings of one family make one front.
        values: the settings of this point.
        budget: its model evaluations.
        setting: those that vary within the family, in words: "weight 0.1".
        key: names the point and everything that decides its result; the name of its file.
    """

    task: str
    split: int
    seed: int
    method: str
    family: str
    values: tuple[tuple[str, Any], ...]
    budget: int
    setting: str
    key: str

    def __str__(self) -> str:
        words = f"{self.task} {self.split} {self.family}"
        return f"{words} ({self.setting})" if self.setting else words


def grid(study: Study) -> list[Point]:
    """All points of a study, seeds and splits outermost, so that an unfinished study has every method.

    Raises:
        ValueError: a setting without a method, or for a task that does not exist.
    """
    points = []
    seeds = {
        (i, task): _seeds(table, task, study)
        for i, table in enumerate(study.settings)
        for task in _tasks_of(table, study)
    }
    for run in range(max(seeds.values())):
        for number, split in enumerate(study.splits):
            for task in study.tasks:
                for i, table in enumerate(study.settings):
                    if run >= seeds.get((i, task.name), 0):
                        continue
                    for values in _combinations(table):
                        seed = number + run * len(study.splits)
                        points.append(_point(study, task.name, split, seed, table, values))
    keys = [point.key for point in points]
    if len(set(keys)) < len(keys):
        raise ValueError("the grid holds the same point twice; remove the repeated `[[settings]]`.")
    return points


@dataclass(frozen=True)
class Shard:
    """One of several equal parts of a grid, for one machine, or one job of an array.

    Attributes:
        number: which part, 1 to `count`.
        count: how many parts there are.

    Raises:
        ValueError: a number outside 1 to `count`.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"shard {self} does not exist; they are 1/{self.count} to {self.count}/{self.count}.")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From "2/8"."""
        if not (found := re.fullmatch(r"(\d+)/(\d+)", text)):
            raise ValueError(f"shard {text!r} is not of the form i/n; the second of eight is 2/8.")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, points: Sequence[Point]) -> list[Point]:
        """Every n-th point, so that each part has every kind of method; the parts together are all points, once."""
        return list(points[self.number - 1 :: self.count])


def _tasks_of(table: dict[str, Any], study: Study) -> list[str]:
    names = [task.name for task in study.tasks]
    if "method" not in table:
        raise ValueError(f"a `[[settings]]` table has no `method`: {table}.")
    chosen = list(table.get("tasks", names))
    if strange := sorted(set(chosen) - set(names)):
        raise ValueError(f"a `[[settings]]` table names the tasks {strange}; there are {', '.join(names)}.")
    return chosen


def _seeds(table: dict[str, Any], task: str, study: Study) -> int:
    """Runs of a setting on each split of a task: the study's, or more by its `seeds = 5` or `seeds = {task = 5}`."""
    asked = table.get("seeds", study.seeds)
    if isinstance(asked, dict):
        if strange := sorted(set(asked) - set(_tasks_of(table, study))):
            raise ValueError(f"`seeds` of a `[[settings]]` table names {strange}, which are none of its tasks.")
        asked = asked.get(task, study.seeds)
    return max(int(asked), study.seeds)


def _combinations(table: dict[str, Any]) -> Iterator[tuple[tuple[str, Any], ...]]:
    varied = {name: value for name, value in table.items() if name not in _RESERVED}
    lists = [value if isinstance(value, list) else [value] for value in varied.values()]
    for chosen in itertools.product(*lists):
        yield tuple(zip(varied, chosen, strict=True))


def _point(study: Study, task: str, split: int, seed: int, table: dict[str, Any], values: Any) -> Point:
    """With a key that changes with whatever decides the result."""
    budget = study.budget * table.get("times_budget", 1)
    parts = {
        "task": study.task(task).__dict__,
        "study": [
            *(study.model_name_or_path, study.tokenizer_name, study.second_model, budget, study.prompt_length),
            *(study.test_rows, study.front_size, study.faithfulness_rows, study.shots),
            *((study.dtype,) if study.dtype != DTYPES[0] else ()),
        ],
        "point": [split, seed, table["method"], list(values)],
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]
    words = re.sub(r"[^a-z0-9.]+", "-", f"{task}-{split}-{table['method']}-{values}".lower()).strip("-")
    family = table.get("family", table["method"])
    setting = ", ".join(f"{name} {value}" for name, value in values if isinstance(table[name], list))
    return Point(task, split, seed, table["method"], family, tuple(values), budget, setting, f"{words[:100]}-{digest}")
