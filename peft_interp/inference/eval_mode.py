"""Evaluation mode, the one way this package runs a model to measure it: no gradients, the model's own precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from accelerate.utils.operations import ConvertOutputsToFp32
from torch import Tensor, nn

from peft_interp.inference.model_lock import model_lock
from peft_interp.inference.models import AnyModel


@contextmanager
def eval_mode(model: AnyModel, adapter_name: str | None = None) -> Iterator[None]:
    """Evaluation mode without gradients and in the model's own precision, also where Trainer has turned autocast on.

    Other threads wait for the model meanwhile. Tensors made inside may be kept and trained with later, also where the
    caller is in `torch.inference_mode()`. Afterwards the active adapter, every module's mode and every parameter's
    `requires_grad` are what they were.

    Args:
        model: a model, or an adapter on one.
        adapter_name: the adapter to make active; None for the active one.
    """
    with model_lock(model):
        modes = {module: module.training for module in model.modules()}
        gradients = {parameter: parameter.requires_grad for parameter in model.parameters()}
        active: str = getattr(model, "active_adapter", "")
        wanted = active if adapter_name is None else adapter_name
        try:
            if wanted != active:
                model.set_adapter(wanted)
            model.eval()
            with lasting_tensors(), own_precision(model):
                yield
        finally:
            if wanted != active:
                model.set_adapter(active)
            for module, training in modes.items():
                module.training = training
            for parameter, required in gradients.items():
                if parameter.requires_grad != required:
                    parameter.requires_grad_(required)


@contextmanager
def lasting_tensors() -> Iterator[None]:
    """No gradients, and tensors made inside may be kept and trained with later, also in `torch.inference_mode()`."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def update_count(tensor: Tensor) -> int:
    """How often a tensor was written to in place; 0 for one made in inference mode, which does not count."""
    return 0 if tensor.is_inference() else tensor._version


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
