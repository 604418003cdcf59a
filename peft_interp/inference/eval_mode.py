"""A model as it is measured: evaluation mode, no gradients, its own precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from accelerate.utils.operations import ConvertOutputsToFp32
from torch import nn


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients and in the model's own precision, also where Trainer has turned autocast on.

    Afterwards every module is in the mode that it was in.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), own_precision(model):
            yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def own_precision(model: nn.Module) -> Iterator[None]:
    """While open, the model runs in the precision of its weights.

    Autocast around the caller is off, and so is the one that `Trainer(bf16=True)` or `fp16=True` leaves in the
    `forward` of the model that it trained, which would turn itself on again inside. Afterwards all is as it was.
    """
    cast = {module: module.__dict__["forward"] for module in model.modules() if "forward" in module.__dict__}
    plain = {module: _without_autocast(module, forward) for module, forward in cast.items()}
    try:
        for module, forward in plain.items():
            module.__dict__["forward"] = forward
        with torch.autocast(next(model.parameters()).device.type, enabled=False):
            yield
    finally:
        for module, forward in cast.items():
            module.__dict__["forward"] = forward


def _without_autocast(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    """What accelerate has wrapped, as often as the model was prepared; other wrappers (device hooks) stay."""
    bound = isinstance(forward, MethodType)
    while isinstance(convert := getattr(forward, "__wrapped__", None), ConvertOutputsToFp32):
        inner = convert.model_forward.__wrapped__  # what autocast decorates
        forward = MethodType(inner, module) if bound else inner
    return forward
