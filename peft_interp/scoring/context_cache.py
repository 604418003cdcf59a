"""Keys and values of token sequences that many others continue: computed once, sliced without copying, never written.

transformers' own cache keeps what it is given, joined with what was there, for all layers at once. Here nothing is
kept: each layer joins the two for its own attention and lets go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from peft_interp.shared_prefix import tapped_head


class ReadOnlyLayer(DynamicLayer):
    """One layer's keys and values, (batch, heads, length, dim), that a forward pass reads and does not extend."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """What is there with what is new behind it."""
        assert self.keys is not None
        assert self.values is not None
        return torch.cat((self.keys, key_states), dim=-2), torch.cat((self.values, value_states), dim=-2)


@dataclass(frozen=True)
class Context:
    """Sequences that were run, all but their last token, which every continuation runs again as its first.

    Attributes:
        layers: keys and values per layer, (sequences, heads, length, dim); none where all sequences are one token.
        lengths: (sequences,) how many of the columns are real; padding stands behind.
        last: (sequences,) the last token, which is not in `layers`.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    lengths: Tensor
    last: Tensor

    def part(self, rows: range) -> Context:
        """Some neighbouring sequences, as a view."""
        cut = slice(rows.start, rows.stop)
        lengths = self.lengths[cut]
        width = int(lengths.max())
        layers = tuple((k[cut, :, :width], v[cut, :, :width]) for k, v in self.layers) if width else ()
        return Context(layers, lengths, self.last[cut])

    def cache(self) -> DynamicCache | None:
        """For a model's `past_key_values`; None where there is nothing."""
        if not self.layers:
            return None
        cache = DynamicCache()
        cache.layers = [ReadOnlyLayer(keys, values) for keys, values in self.layers]
        return cache

    def bytes(self) -> int:
        """Memory of keys and values."""
        return sum(k.nbytes + v.nbytes for k, v in self.layers)


def build_context(model: Any, sequences: Sequence[Sequence[int]], pad_id: int = 0) -> Context:
    """Run sequences of at least one token each, without gradient, and keep what their continuations need.

    Padding goes behind, where no real token sees it; so no mask is needed and positions just count.
    """
    device = model.get_input_embeddings().weight.device
    lengths = [len(sequence) - 1 for sequence in sequences]
    width = max(lengths)
    layers: tuple[tuple[Tensor, Tensor], ...] = ()
    if width:
        padded = [[*sequence[:-1], *[pad_id] * (width - len(sequence) + 1)] for sequence in sequences]
        ids = torch.tensor(padded, device=device)  # (sequences, width)
        places = torch.arange(width, device=device).unsqueeze(0)
        with tapped_head(model, torch.zeros_like(ids, dtype=torch.bool)):  # no logits
            output = model(input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=places, use_cache=True)
        layers = tuple((layer.keys, layer.values) for layer in output.past_key_values.layers)
    last = torch.tensor([sequence[-1] for sequence in sequences], device=device)
    return Context(layers, torch.tensor(lengths, device=device), last)
