"""What `Trainer(bf16=True)` leaves behind in a model: a `forward` of its own that turns autocast on."""

from __future__ import annotations

from collections.abc import Iterator
from types import MethodType

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils.operations import ConvertOutputsToFp32
from torch import nn


class Layer(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input)


@pytest.fixture
def fresh_state() -> Iterator[None]:
    """Accelerate keeps its settings in one place for the whole process; other tests' are gone, and so are these."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("fresh_state")
def test_prepared_models_keep_an_autocast_forward() -> None:
    """Promise: `own_precision` finds the model's own forward after `__wrapped__`, `model_forward`, `__wrapped__`."""
    layer, inputs = Layer(8, 8), torch.randn(4, 8)
    plain = layer(inputs)
    Accelerator(mixed_precision="bf16", cpu=True).prepare(layer)
    forward = layer.__dict__["forward"]
    assert isinstance(forward, MethodType)
    with torch.autocast("cpu", enabled=False):  # the inner one wins
        assert not torch.equal(layer(inputs), plain)
    convert = forward.__wrapped__
    assert isinstance(convert, ConvertOutputsToFp32)
    assert convert.model_forward.__wrapped__ is Layer.forward
