"""A table of the report, and how a number stands in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from studies.tradeoff.outcomes import Unit
from studies.tradeoff.statistics import spread

Cells = list[str]


@dataclass(frozen=True)
class Table:
    """A table. `notes` says what the columns are."""

    title: str
    notes: str
    columns: Cells
    rows: list[Cells]


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
