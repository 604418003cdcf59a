"""Numbers that Python needs from the device, fetched without stopping it.

Reading a number from a GPU (`.item()`, `if tensor:`) waits until the GPU has done everything it was given, and leaves
it idle until Python has given it more. A `Readback` only waits for its own numbers: ask for them at the beginning of a
step, read them after the model's pass was started, and the GPU has work while Python waits.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Readback:
    """Numbers on their way to the host.

    Args:
        numbers: (count,) on any device.

    Attributes:
        immediate: whether reading never waits, because the numbers are in the host's memory.
    """

    def __init__(self, numbers: Tensor) -> None:
        numbers = numbers.detach()
        self.immediate = numbers.device.type == "cpu"
        self._arrived: torch.cuda.Event | None = None
        self._host = numbers
        if numbers.is_cuda:
            self._host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self._host.copy_(numbers, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(numbers.device))

    def read(self) -> list[float]:
        """The numbers, when they have arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
        host = self._host if self._host.device.type == "cpu" else self._host.cpu()
        return [float(number) for number in host.numpy()]


def on_host(number: Tensor) -> float:
    """A scalar's value; for a tensor on a GPU this waits until the GPU has done everything."""
    return float(number.numpy() if number.device.type == "cpu" else number.item())


def same_on_host(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors in the host's memory are equal bit for bit; false for tensors on another device."""
    if one.device.type != "cpu" or other.device.type != "cpu" or one.dtype != other.dtype or one.shape != other.shape:
        return False
    first, second = (x.contiguous().view(torch.uint8).numpy().tobytes() for x in (one, other))
    return first == second
