"""One record for each reward, search move and loss term: their weights become settings, all of them become tables.

A registry is a tuple of small frozen dataclasses beside the functions that they name (`REWARDS`, `MOVES`, `LOSS_TERMS`,
`METRICS`, `TASK_TYPES`, ...). Everything else, settings and their help, logs, reports, cards and docs, is made from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import field, make_dataclass
from typing import Any, Protocol


class Weighted(Protocol):
    """A record whose weight a user can set.

    Attributes:
        setting: the config's field; "" for what has no weight of its own.
        default: the weight where the user sets none.
        weight_help: the field's help text.
    """

    @property
    def setting(self) -> str:
        """The config's field."""

    @property
    def default(self) -> float:
        """The field's default."""

    @property
    def weight_help(self) -> str:
        """The field's help text."""


def weight_settings(name: str, records: Iterable[Weighted]) -> Any:
    """A dataclass with one float field for the weight of each record: a base for the config that has these weights.

    Args:
        name: of the class.
        records: those without a `setting` are left out.

    Returns:
        The class, typed `Any`: type checkers cannot see fields that are made from records.
    """
    fields = [
        (record.setting, float, field(default=record.default, metadata={"help": record.weight_help}))
        for record in records
        if record.setting
    ]
    made = make_dataclass(name, fields)
    made.__module__ = __name__
    made.__doc__ = "Weights that a user can set, made from records."
    return made


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as Markdown; bars inside cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
