"""Many token sequences behind one context, run as a single sequence in which common beginnings stand once.

The tokens form a tree: a token sees its ancestors and itself and nothing else. One forward pass over its nodes, with
the mask of `visible` and positions that count depth, gives every sequence the states that it would have alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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
