"""Keys and values of many sequences that grow: room for all tokens is made once, and every pass writes its own part.

Transformers' cache is copied at every token. Where hundreds of answers are written at once, that costs as much as the
model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class GrowingLayer(DynamicLayer):
    """One layer's keys and values, (batch, heads, columns, dim), of which the first `filled` columns are there.

    Args:
        columns: room for so many tokens.
    """

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns, self.filled = columns, 0
        self.room: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write what is new, (batch, heads, new, dim), and return all that is there."""
        if self.room is None:
            self.lazy_initialization(key_states, value_states)
            shapes = [(*states.shape[:2], self.columns, states.shape[3]) for states in (key_states, value_states)]
            self.room = (key_states.new_empty(shapes[0]), value_states.new_empty(shapes[1]))
        start, stop = self.filled, self.filled + key_states.shape[2]
        keys, values = self.room
        keys[:, :, start:stop], values[:, :, start:stop] = key_states, value_states
        self.filled = stop
        return keys[:, :, :stop], values[:, :, :stop]

    def get_seq_length(self) -> int:
        """Tokens that are there."""
        return self.filled

    def spread(self, owners: Tensor, columns: int) -> GrowingLayer:
        """A layer for (owners,) sequences, each beginning as the one it names, with room for `columns` tokens."""
        assert self.room is not None
        layer = GrowingLayer(columns)
        beginnings = [room[owners, :, : self.filled] for room in self.room]
        layer.update(beginnings[0], beginnings[1])
        return layer

    def part(self, rows: slice) -> GrowingLayer:
        """Some neighbouring sequences, which write into the same room."""
        assert self.room is not None
        layer = GrowingLayer(self.columns)
        layer.room, layer.filled = (self.room[0][rows], self.room[1][rows]), self.filled
        layer.dtype, layer.device, layer.is_initialized = self.dtype, self.device, True
        return layer

    def bytes(self) -> int:
        """Memory."""
        return 0 if self.room is None else sum(room.nbytes for room in self.room)


def growing_cache(layers: Sequence[GrowingLayer]) -> DynamicCache:
    """A model's cache of these layers."""
    cache = DynamicCache()
    cache.layers = list(layers)
    return cache


def beginnings(layers: Sequence[GrowingLayer], owners: Tensor, columns: int) -> list[GrowingLayer]:
    """`spread` of all layers."""
    return [layer.spread(owners, columns) for layer in layers]


def kept(layers: Sequence[GrowingLayer], places: Tensor) -> list[GrowingLayer]:
    """Only the sequences at these places, with the room that is left."""
    return [layer.spread(places, layer.columns) for layer in layers]


def parts(layers: Sequence[GrowingLayer], rows: slice) -> list[GrowingLayer]:
    """`part` of all layers."""
    return [layer.part(rows) for layer in layers]


def layer_bytes(layers: Sequence[GrowingLayer]) -> int:
    """Memory of all layers."""
    return sum(layer.bytes() for layer in layers)
