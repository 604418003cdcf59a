"""A model as it is measured: evaluation mode, no gradients, its own precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients and in the model's own precision, also where Trainer has turned autocast on.

    Afterwards every module is in the mode that it was in.
    """
    device = next(model.parameters()).device.type
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(device, enabled=False):
            yield
    finally:
        for module, training in modes.items():
            module.training = training
