"""torch.compile and this package: the base model is compiled, and what is around it runs as it is.

A model of ours decides from step to step (which way, which shape, is a number there yet), which a compiler could only
follow by compiling anew. What takes the time is the base model, which it gets as one graph.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch._C._dynamo.eval_frame import get_eval_frame_callback
from torch._dynamo.decorators import skip  # what `disable(recursive=False)` rests on, without its wrapper's cost

if TYPE_CHECKING:
    from transformers import PreTrainedModel

F = TypeVar("F", bound=Callable[..., Any])


def inside_graphs(function: F) -> F:
    """Mark a function that the base model calls, and that is compiled with it."""
    function.__dict__["_inside_graphs"] = True
    return function


def without_compiling(model: PreTrainedModel) -> Any:
    """The model as a function that runs uncompiled: a compiled one does not see that its hooks have changed."""
    return torch.compiler.disable(model.__call__)


def compiles() -> bool:
    """Whether what is called now would be compiled: then hooks that come and go are not seen."""
    return get_eval_frame_callback() not in (None, False)


def keep_out_of_graphs(package: str) -> None:
    """Have torch.compile leave alone the functions of a package that are loaded now, but not what they call."""
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{package}."):
            for function in _functions(vars(module), name):
                if not hasattr(function, "_inside_graphs"):
                    skip(function)


def _functions(names: Any, module: str) -> Iterator[FunctionType]:
    """Functions and methods that a module defines, those inside decorators included."""
    for value in list(names.values()):
        if isinstance(value, type) and value.__module__ == module:
            yield from _functions(vars(value), module)
        if isinstance(value, property | staticmethod | classmethod | cached_property):
            value = getattr(value, "fget", None) or getattr(value, "func", None) or getattr(value, "__func__", None)
        while isinstance(value, FunctionType) and value.__module__ == module:
            yield value
            value = getattr(value, "__wrapped__", None)
