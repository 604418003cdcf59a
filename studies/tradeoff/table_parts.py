"""What the report's tables are made of: titles, notes and cells as plain text, and the numbers in the cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from study_outcomes import Outcome, Unit, groups, over_units, select, shared_tasks
from study_statistics import spread

Cells = list[str]


@dataclass(frozen=True)
class Table:
    """A table. `notes` says what the columns are."""

    title: str
    notes: str
    columns: Cells
    rows: list[Cells]


def averaged(outcomes: Sequence[Outcome]) -> str:
    """What an average over tasks is made of, in words."""
    return (
        f"Mean over {', '.join(shared_tasks(outcomes))}, the tasks that most methods were run on, each split weighing "
        "the same; a method that was run on fewer says on which."
    )


def compared(outcomes: Sequence[Outcome], of: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Outcomes on the tasks that most families share, by family; those that lack some of them say which they have."""
    tasks, found = shared_tasks(of), {}
    for family, own in groups(select(outcomes, task=tuple(tasks)), lambda o: o.family).items():
        ran = [task for task in tasks if select(own, task=task)]
        found[family if ran == tasks else f"{family} ({', '.join(ran)})"] = own
    return found


def each(
    outcomes: Sequence[Outcome], names: Sequence[str], value: Callable[[Outcome, str], float | None]
) -> list[float | None]:
    """Mean over tasks and splits of a value under each of several names."""

    def mean_of(name: str) -> float | None:
        return over_units(outcomes, lambda o: value(o, name))

    return [mean_of(name) for name in names]


def spread_cell(values: Mapping[Unit, float], scale: float, digits: int) -> str:
    """Mean, standard deviation and interval of a value of each split; "" of none."""
    if not values:
        return ""
    of = spread([scale * value for value in values.values()])
    if of.n == 1 or len(set(values.values())) == 1:
        return f"{of.mean:.{digits}f}"
    return f"{of.mean:.{digits}f} ({of.sd:.{digits}f}; {of.low:.{digits}f} to {of.high:.{digits}f})"


def percent(share: float | None) -> str:
    """A share, 0 to 1, as a whole number of percent; "" of none."""
    return "" if share is None else f"{100 * share:.0f}"
