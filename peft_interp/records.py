"""One record for each reward, search move and loss term: their weights become settings, all of them become tables.

A registry is a tuple of small frozen dataclasses beside the functions that they name (`REWARDS`, `MOVES`, `LOSS_TERMS`,
`METRICS`, `TASK_TYPES`, ...). Everything else, settings and their help, logs, reports, cards and docs, is made from it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import field, make_dataclass
from typing import Any, Protocol

_LONGEST_TEXT, _MOST_ITEMS = 120, 12


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


def short_repr(name: str, **shown: Any) -> str:
    """What `repr` shows of a result: its main numbers, within a dozen lines of a hundred columns.

    Args:
        name: of the class.
        shown: what is worth a look, by name; floats are rounded, long texts and lists cut, None left out.
    """
    parts = [f"{key}={_short(value)}" for key, value in shown.items() if value is not None]
    inside = textwrap.wrap(", ".join(parts), width=96, break_long_words=True, max_lines=10, placeholder=" ...")
    if len(inside) <= 1:
        return f"{name}({''.join(inside)})"
    return "\n".join([f"{name}(", *(f"    {line}" for line in inside), ")"])


def _short(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, float | str | dict | list | tuple):
        return repr(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST_TEXT else f"{value[:_LONGEST_TEXT]}...")
    if isinstance(value, dict):
        items = [f"{key}: {_short(item)}" for key, item in list(value.items())[:_MOST_ITEMS]]
    else:
        items = [_short(item) for item in value[:_MOST_ITEMS]]
    more = [f"... {len(value) - _MOST_ITEMS} more"] if len(value) > _MOST_ITEMS else []
    left, right = "{}" if isinstance(value, dict) else "[]" if isinstance(value, list) else "()"
    return f"{left}{', '.join([*items, *more])}{right}"
