"""What a GPU would be stopped by: operations that need a value, or a shape that depends on one, from the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.training_step.operations import WAITS

STOPS = WAITS | {"unique2"}


class NoStops(TorchDispatchMode):
    """While open, they are refused."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        masks = any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in indices)
        if name in STOPS or masks:
            raise AssertionError(f"{name} stops the device")
        return func(*args, **(kwargs or {}))
