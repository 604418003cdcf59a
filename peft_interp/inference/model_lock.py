"""One thread at a time on a model: a re-entrant lock for each base model, which all adapters on it share.

Measuring a model needs it in evaluation mode, perhaps with another adapter active, and with hooks that collect what is
asked for. A second thread must not see a model in that state, nor put it back while the first still runs. Everything
in this package that runs a model holds its lock; so may the user's own code, with `model_lock(model)`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from itertools import count
from typing import ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

P = ParamSpec("P")
T = TypeVar("T")

_numbers = count()
_locks: WeakKeyDictionary[nn.Module, tuple[int, threading.RLock]] = WeakKeyDictionary()  # type: ignore[valid-type]
_making = threading.RLock()


def lock_owner(model: nn.Module) -> nn.Module:
    """The base model inside adapters and the wrappers of compilers and data parallelism: what threads share."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, PeftModel):
            inner = model.base_model
        elif isinstance(model, BaseTuner):
            inner = model.model
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


@contextmanager
def model_lock(*models: object) -> Iterator[None]:
    """While open, no other thread runs or measures these models with this package; a thread may open it again.

    Several locks are taken in one order, whichever way round the models are given, so that two threads never wait for
    each other. A thread that needs a second model therefore asks for both at once, not for one inside the other.

    Args:
        models: models, adapters on them, or anything else, which is not locked.
    """
    owners = {id(owner): owner for owner in (lock_owner(model) for model in models if isinstance(model, nn.Module))}
    with _making:
        found = []
        for owner in owners.values():
            if owner not in _locks:
                _locks[owner] = (next(_numbers), threading.RLock())
            found.append(_locks[owner])
    with ExitStack() as stack:
        for _, lock in sorted(found, key=lambda pair: pair[0]):
            stack.enter_context(lock)
        yield


def locked(function: Callable[P, T]) -> Callable[P, T]:
    """A function, or a model's method, that holds the locks of all models among its arguments while it runs."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with model_lock(*args, *kwargs.values()):
            return function(*args, **kwargs)

    return run
