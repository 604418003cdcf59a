"""Results as a flat list: one outcome for every prompt that was measured, and the sums that every table is made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import mean
from typing import Any

Unit = tuple[str, int]  # task, split: what is averaged over seeds first, and what comparisons are paired by
READING = ", nearest tokens"
EMPTY = "empty"
SEARCHED = ("search", "human_search", "examples", "pez", "rlprompt", "random_search")  # methods that find a text
VECTORS = ("prompt_tuning", "p_tuning", "prefix_tuning")
RAW, CALIBRATED = "accuracy", "batch_accuracy"  # label words as they are, or with batch calibration


@dataclass(frozen=True)
class Outcome:
    """One prompt of one run.

    Attributes:
        unit: task, split.
        seed: of the run.
        method: name of the method.
        family: what it is compared as; that of a nearest-token reading says so.
        setting: the run's settings in words.
        weight: of perplexity, 0 where there is none.
        plain: whether the run was asked for no readability at all, by weight or target.
        role: "chosen", "front" or "reading".
        key: of the run.
        budget: model evaluations the run was given.
        measured: what `measure_found` recorded.
        details: how the run's search went.
        control: whether the run was to choose among prompts without a flag only, which is not the paper's method.
        names_labels: whether the method was meant to name the label words, which are no leak then.
    """

    unit: Unit
    seed: int
    method: str
    family: str
    setting: str
    weight: float
    plain: bool
    role: str
    key: str
    budget: int
    measured: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)
    control: bool = False
    names_labels: bool = False

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.unit[0]

    @property
    def accuracy(self) -> float:
        """On the test rows, 0 to 1."""
        return float(self.measured["accuracy"])

    @property
    def text(self) -> str | None:
        """What the prompt says; None for vectors."""
        return self.measured.get("text")

    def number(self, name: str) -> float | None:
        """A measure; None where it has none."""
        value = self.measured.get(name)
        return None if value is None else float(value)


def outcomes_of(records: Iterable[dict[str, Any]]) -> list[Outcome]:
    """Every prompt of every record."""
    found = []
    for record in records:
        unit = (record["task"], record["split"])
        weight = float(record["values"].get("weight", 0.0))
        for measured in record["prompts"]:
            role = measured["role"]
            family = record["family"] + (READING if role == "reading" else "")
            plain = not weight and "target_percentile" not in record["values"]
            about = (unit, record["seed"], record["method"], family, record["setting"], weight, plain, role)
            control = bool(record["values"].get("unflagged"))
            names = record["method"] == "examples" or (
                record["method"] == "search" and bool(record["values"].get("label_words"))
            )
            found.append(Outcome(*about, record["key"], record["budget"], measured, record["details"], control, names))
    return found


def variant(outcome: Outcome) -> str:
    """How the family's name says that it differs from the method's main form; "" where it does not."""
    return outcome.family.partition(", ")[2]


def select(outcomes: Iterable[Outcome], **wanted: Any) -> list[Outcome]:
    """Those whose attributes have the wanted values; a tuple lists several."""
    allowed = {name: value if isinstance(value, tuple) else (value,) for name, value in wanted.items()}
    return [o for o in outcomes if all(getattr(o, name) in values for name, values in allowed.items())]


def groups(outcomes: Iterable[Outcome], key: Callable[[Outcome], Any]) -> dict[Any, list[Outcome]]:
    """By a key, in order of first appearance."""
    found: dict[Any, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        found[key(outcome)].append(outcome)
    return dict(found)


def judged(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Without the other prompts of a front: one outcome for each run, and for each reading of vectors."""
    return select(outcomes, role=("chosen", "reading"))


def families(outcomes: Iterable[Outcome]) -> list[str]:
    """In the order of the configuration."""
    return list(dict.fromkeys(outcome.family for outcome in outcomes))


def shared_tasks(outcomes: Sequence[Outcome]) -> list[str]:
    """Tasks that more than two thirds of the families were run on, which averages over tasks are made of.

    Where there is none, those that most were run on.
    """
    ran = {task: len(families(own)) for task, own in groups(outcomes, lambda o: o.task).items()}
    enough = min(max(ran.values(), default=0), 2 * len(families(outcomes)) // 3 + 1)
    return [task for task, count in ran.items() if count >= enough]


def by_unit(outcomes: Iterable[Outcome], value: Callable[[Outcome], float | None]) -> dict[Unit, float]:
    """Mean of a value for each task and split."""
    found = {}
    for unit, own in groups(outcomes, lambda o: o.unit).items():
        numbers = [number for o in own if (number := value(o)) is not None]
        if numbers:
            found[unit] = mean(numbers)
    return found


def over_units(outcomes: Iterable[Outcome], value: Callable[[Outcome], float | None]) -> float | None:
    """Mean of a value in which every task and split weighs the same, however many seeds it was run with."""
    found = by_unit(outcomes, value)
    return mean(found.values()) if found else None


def over_seeds(outcomes: Iterable[Outcome], value: Callable[[list[Outcome]], float | None]) -> dict[Unit, float]:
    """For each task and split the mean over seeds of what `value` makes of all prompts of one seed."""
    found = {}
    for unit, own in groups(outcomes, lambda o: o.unit).items():
        numbers = [number for seed in groups(own, lambda o: o.seed).values() if (number := value(seed)) is not None]
        if numbers:
            found[unit] = mean(numbers)
    return found


def no_prompt(outcomes: Sequence[Outcome], scored: str = RAW) -> dict[Unit, float]:
    """Accuracy without a prompt, as it is or with calibrated label words."""
    return by_unit(select(outcomes, method=EMPTY), lambda o: o.number(scored))


@dataclass(frozen=True)
class Corner:
    """What is no better than nothing: the accuracy without a prompt, and the NLL of random tokens."""

    accuracy: float
    nll: float


def corner(outcomes: Sequence[Outcome], unit: Unit, scored: str = RAW) -> Corner | None:
    """The corner of a task; None where no prompt of it has an NLL, or "no prompt" was not run."""
    levels = [o.measured["nll_random"] for o in outcomes if o.unit == unit and o.measured.get("nll_random") is not None]
    accuracy = no_prompt([o for o in outcomes if o.unit == unit], scored).get(unit)
    return None if not levels or accuracy is None else Corner(accuracy, max(levels))


def best_on_dev(outcomes: Iterable[Outcome], scored: str = RAW) -> Outcome | None:
    """Most right dev rows, then the least loss there; None of none. The test rows choose nothing."""
    right = f"dev_{scored}"
    return max(outcomes, key=lambda o: (o.number(right) or 0.0, -(o.number("dev_loss") or 0.0)), default=None)


def steps(outcomes: Iterable[Outcome], scored: str = RAW) -> list[tuple[float, float]]:
    """(NLL, test accuracy) corners: at every NLL, of the prompts as fluent or more so, the one that is best on dev."""
    known = sorted(((nll, o) for o in outcomes if (nll := o.number("nll")) is not None), key=lambda pair: pair[0])
    found = []
    for number, (nll, _) in enumerate(known):
        best = best_on_dev((o for _, o in known[: number + 1]), scored)
        assert best is not None
        found.append((nll, best.number(scored) or 0.0))
    return found


def volume(outcomes: Iterable[Outcome], of: Corner, scored: str = RAW) -> float:
    """Share, 0 to 1, of the square between the corner and (all right, NLL 0) that lies under the steps of prompts."""
    if of.accuracy >= 1:
        return 0.0
    corners = [*steps(outcomes, scored), (of.nll, 0.0)]
    covered = sum(
        max(0.0, accuracy - of.accuracy) * max(0.0, min(after, of.nll) - nll)
        for (nll, accuracy), (after, _) in pairwise(corners)
    )
    return covered / ((1 - of.accuracy) * of.nll)


def volumes(
    outcomes: Sequence[Outcome], family: str, per_run: bool, setting: str | None = None, scored: str = RAW
) -> dict[Unit, float]:
    """Hypervolume of a family for each unit: the mean of its runs' own fronts, or that of one seed's runs together.

    A front that costs one run and one that costs a run for each weight are not the same thing; hence both.

    Args:
        outcomes: of all methods, since the corner is common to them.
        family: whose prompts.
        per_run: which of the two.
        setting: of the family; None for all of its settings.
        scored: `RAW` or `CALIBRATED`, no prompt's accuracy too.
    """
    own = [o for o in select(outcomes, family=family) if setting in (None, o.setting)]
    places = {unit: corner(outcomes, unit, scored) for unit in groups(own, lambda o: o.unit)}

    def covered(prompts: list[Outcome]) -> float | None:
        place = places[prompts[0].unit]
        if place is None or all(o.number("nll") is None for o in prompts):
            return None
        runs = list(groups(prompts, lambda o: o.key).values()) if per_run else [prompts]
        return mean([volume(run, place, scored) for run in runs])

    return over_seeds(own, covered)


def one_run_front(
    outcomes: Sequence[Outcome], family: str, tasks: Sequence[str], setting: str | None = None
) -> float | None:
    """Mean hypervolume of a family's runs over tasks, each weighing the same; None where it lacks one of them."""
    covered = [volumes(select(outcomes, task=task), family, True, setting) for task in tasks]
    return mean(mean(values.values()) for values in covered) if tasks and all(covered) else None


def at_human_level(outcomes: Sequence[Outcome], family: str) -> dict[Unit, float]:
    """Test accuracy of a family's prompts that are as fluent as the median human-written prompt of their length."""
    return best_that_pass(outcomes, family, is_fluent)


def best_that_pass(
    outcomes: Sequence[Outcome], family: str, passes: Callable[[Outcome], bool], scored: str = RAW
) -> dict[Unit, float]:
    """Test accuracy of a family's prompts that pass; of one seed's the one of best dev accuracy, then least dev loss.

    Args:
        outcomes: of all methods: where none passes, no prompt is left.
        family: whose prompts.
        passes: `is_fluent` or `is_readable`.
        scored: `RAW` or `CALIBRATED`, on dev and on test rows alike.
    """
    empty = no_prompt(outcomes, scored)

    def left(prompts: list[Outcome]) -> float | None:
        if (best := best_on_dev(filter(passes, prompts), scored)) is not None:
            return best.number(scored)
        known = [o for o in prompts if o.number("nll") is not None]
        return empty.get(known[0].unit) if known else None

    return over_seeds(select(outcomes, family=family), left)


def is_fluent(outcome: Outcome) -> bool:
    """Whether a prompt is as likely as the median human-written one of its length; False of vectors."""
    nll, human = outcome.number("nll"), outcome.number("nll_human")
    return nll is not None and human is not None and nll <= human


def is_readable(outcome: Outcome) -> bool:
    """Whether the text passes the package's verdict: its score, and none of the flags that make a text unreadable."""
    return bool(outcome.measured.get("readable")) and not outcome.measured.get("unreadable_flags")


def seeds_that_pass(
    outcomes: Sequence[Outcome], family: str, passes: Callable[[Outcome], bool] = is_fluent
) -> tuple[int, int]:
    """Seeds (on a split) of a family in which some prompt passes, and all."""
    own = groups(select(outcomes, family=family), lambda o: (o.unit, o.seed)).values()
    return sum(any(map(passes, prompts)) for prompts in own), len(own)
