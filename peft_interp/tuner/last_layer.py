"""The last layer's feed-forward part at the positions that the head reads, and at no others.

After the last attention no position sees another, so what the feed-forward part makes of a position without a label
(two thirds of a layer's multiply-adds) is read by nobody. Two hooks cut its input down and put its output back into
place; the states elsewhere mean nothing then.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from transformers import PreTrainedModel

from peft_interp.inference.compilation import compiles
from peft_interp.inference.models import layer_lists


@dataclass(frozen=True)
class FeedForward:
    """The feed-forward part of a causal LM's last layer.

    Attributes:
        module: takes and returns (batch, length, dim).
        around: it, its layer, and all that these stand in.
    """

    module: nn.Module
    around: tuple[nn.Module, ...]

    @property
    def is_compiled(self) -> bool:
        """Whether hooks that come and go would not be seen."""
        return compiles() or any(
            isinstance(module, OptimizedModule) or module._compiled_call_impl is not None for module in self.around
        )


def last_feed_forward(model: PreTrainedModel) -> FeedForward | None:
    """The module `mlp` of a causal LM's last layer, as most of them call it; None where it is not to be found.

    That it works on every position alone is for the caller to try.
    """
    lists = layer_lists(model)
    found = getattr(lists[0][-1], "mlp", None) if len(lists) == 1 else None
    if not isinstance(found, nn.Module):
        return None
    return FeedForward(found, tuple(part for part in model.modules() if any(one is found for one in part.modules())))


@contextmanager
def only_at(feed_forward: FeedForward | None, places: Tensor, positions: int) -> Iterator[None]:
    """While open, a feed-forward part computes what stands at some positions; nothing changes in other threads.

    Args:
        feed_forward: what `last_feed_forward` found; with None nothing changes.
        places: (places,) int64 indices into the flattened (batch, length), which may come more than once.
        positions: batch * length. Where most of them are wanted, nothing changes.
    """
    if feed_forward is None or 2 * len(places) > positions or feed_forward.is_compiled:
        yield
        return
    cut, module = _Cut(places, positions), feed_forward.module
    handles = module.register_forward_pre_hook(cut.before), module.register_forward_hook(cut.after)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Cut:
    def __init__(self, places: Tensor, positions: int) -> None:
        self.places = places
        # for each position which of the places has its state; the others get the first one's, which is not read
        self.source = places.new_zeros(positions).scatter_(0, places, torch.arange(len(places), device=places.device))
        self.shape: torch.Size | None = None
        self._thread = threading.get_ident()

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if threading.get_ident() != self._thread:
            return None
        states: Tensor = args[0]
        self.shape = states.shape
        return (states.flatten(0, 1).index_select(0, self.places.to(states.device)).unsqueeze(0), *args[1:])

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if threading.get_ident() != self._thread:
            return None
        assert self.shape is not None
        return output[0].index_select(0, self.source.to(output.device)).view(self.shape)
