"""Many token sequences after one context, run as a single sequence in which common beginnings stand once.

The tokens form a tree: a token sees its ancestors and itself and nothing else. One forward pass over its nodes, with
the mask of `visible` and positions that count depth, gives every sequence the states that it would have alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from peft_interp.inference.batching import moved, padded_ids
from peft_interp.inference.compat import keys_and_values
from peft_interp.inference.head import nowhere, tapped_head
from peft_interp.inference.models import input_embeddings


class ReadOnlyLayer(DynamicLayer):
    """One layer's keys and values, (batch, heads, length, dim), that a forward pass reads and does not extend."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """What is there with what is new after it."""
        assert self.keys is not None
        assert self.values is not None
        return torch.cat((self.keys, key_states), dim=-2), torch.cat((self.values, value_states), dim=-2)


@dataclass(frozen=True)
class Context:
    """Sequences that were run, all but their last token, which every continuation runs again as its first.

    Attributes:
        layers: keys and values per layer, (sequences, heads, length, dim); none where all sequences are one token.
        lengths: for each sequence how many of the columns are real; padding stands after.
        last: (sequences,) the last token, which is not in `layers`.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    lengths: tuple[int, ...]
    last: Tensor

    def part(self, rows: range) -> Context:
        """Some neighbouring sequences, as a view."""
        cut = slice(rows.start, rows.stop)
        lengths = self.lengths[cut]
        width = max(lengths)
        layers = tuple((k[cut, :, :width], v[cut, :, :width]) for k, v in self.layers) if width else ()
        return Context(layers, lengths, self.last[cut])

    def cache(self) -> DynamicCache | None:
        """For a model; None where there is nothing."""
        if not self.layers:
            return None
        cache = DynamicCache()
        cache.layers = [ReadOnlyLayer(keys, values) for keys, values in self.layers]
        return cache

    def bytes(self) -> int:
        """Memory of keys and values."""
        return sum(k.nbytes + v.nbytes for k, v in self.layers)


def build_context(model: PreTrainedModel, sequences: Sequence[Sequence[int]], pad_id: int = 0) -> Context:
    """Run sequences of at least one token each, without gradient, and keep what their continuations need.

    Padding goes after, where no real token sees it; so no mask is needed and positions just count.
    """
    device = input_embeddings(model).weight.device
    lengths = tuple(len(sequence) - 1 for sequence in sequences)
    width = max(lengths)
    layers: tuple[tuple[Tensor, Tensor], ...] = ()
    if width:
        ids = padded_ids([sequence[:-1] for sequence in sequences], width, pad_id, device)  # (sequences, width)
        places = torch.arange(width, device=device).unsqueeze(0)
        with tapped_head(model, nowhere(ids)):  # no logits
            output = model(input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=places, use_cache=True)
        layers = tuple((layer.keys, layer.values) for layer in keys_and_values(output))
    return Context(layers, lengths, moved([sequence[-1] for sequence in sequences], device))


@dataclass(frozen=True)
class TokenTree:
    """Sequences with common beginnings merged.

    Attributes:
        ids: (nodes,) token of each node; parents stand before their children.
        depths: (nodes,) how many tokens stand above each node.
        parents: (nodes,) index of the token in front; -1 at a beginning.
        paths: for each sequence the nodes that it runs through.
    """

    ids: Tensor
    depths: Tensor
    parents: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]


def token_tree(sequences: Sequence[Sequence[int]]) -> TokenTree:
    """Merge common beginnings; equal sequences share all their nodes."""
    known: dict[tuple[int, int], int] = {}
    ids: list[int] = []
    depths: list[int] = []
    parents: list[int] = []
    paths = []
    for sequence in sequences:
        path: list[int] = []
        for token in sequence:
            parent = path[-1] if path else -1
            node = known.setdefault((parent, token), len(ids))
            if node == len(ids):
                ids.append(token)
                depths.append(len(path))
                parents.append(parent)
            path.append(node)
        paths.append(tuple(path))
    return TokenTree(torch.tensor(ids), torch.tensor(depths), tuple(parents), tuple(paths))


def visible(tree: TokenTree) -> Tensor:
    """(nodes, nodes) bool: row i is true at node i and at its ancestors."""
    mask = torch.eye(len(tree.parents), dtype=torch.bool)
    rows = mask.numpy()  # shares memory; row by row it is far quicker than a tensor
    for node, parent in enumerate(tree.parents):
        if parent >= 0:
            rows[node] |= rows[parent]
    return mask


def new_nodes(sequences: Sequence[Sequence[int]]) -> list[int]:
    """For sorted sequences: how many nodes each one adds to the tree of those before it."""
    added = []
    before: Sequence[int] = ()
    for sequence in sequences:
        common = 0
        for a, b in zip(before, sequence, strict=False):
            if a != b:
                break
            common += 1
        added.append(len(sequence) - common)
        before = sequence
    return added


def pack(sequences: Sequence[Sequence[int]], limit: int) -> list[range]:
    """Cut sorted sequences into neighbours whose tree has at most `limit` nodes, or that are one sequence."""
    added = new_nodes(sequences)
    ranges, start, nodes = [], 0, 0
    for index, sequence in enumerate(sequences):
        if index > start and nodes + added[index] > limit:
            ranges.append(range(start, index))
            start, nodes = index, 0
        nodes += len(sequence) if index == start else added[index]
    return [*ranges, range(start, len(sequences))] if sequences else []
