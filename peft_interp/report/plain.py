"""Records back from the plain dictionaries and lists that JSON can hold (`as_plain` is the other way)."""

from __future__ import annotations

import math
import types
from dataclasses import fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints


def rebuild(kind: Any, plain: Any) -> Any:
    """A value of type `kind` from what `as_plain` made of it.

    A number that JSON cannot hold was stored as None and comes back as NaN. Keys that the record does not have are
    left out, so that a report of a later version with the same schema can be read, and so are those that it computes
    itself.

    Args:
        kind: a dataclass of records, numbers, strings, `tuple[X, ...]`, `dict[str, X]` and optional ones.
        plain: dictionaries, lists, numbers, strings.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if plain is None else rebuild(inner, plain)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        known = {field.name for field in fields(kind) if field.init} & set(plain)
        return kind(**{name: rebuild(hints[name], plain[name]) for name in known})  # type: ignore[operator]
    if origin is tuple:
        return tuple(rebuild(arguments[0], item) for item in plain)
    if origin is dict:
        return {key: rebuild(arguments[1], item) for key, item in plain.items()}
    if kind is float:
        return math.nan if plain is None else float(plain)
    return plain
