"""Trees of token sequences: common beginnings stand once, and every sequence still sees only itself."""

from __future__ import annotations

import random

import torch

from peft_interp.scoring.token_tree import new_nodes, pack, token_tree, visible

SEQUENCES = [(1, 2, 3), (1, 2, 4), (5,), (1, 2), (5,)]


def test_common_beginnings_are_merged() -> None:
    tree = token_tree(SEQUENCES)
    assert tree.ids.tolist() == [1, 2, 3, 4, 5]
    assert tree.depths.tolist() == [0, 1, 2, 2, 0]
    assert [tree.ids[list(path)].tolist() for path in tree.paths] == [list(s) for s in SEQUENCES]


def test_a_node_sees_its_own_sequence_only() -> None:
    tree = token_tree(SEQUENCES)
    mask = visible(tree)
    for path in tree.paths:
        assert mask[path[-1]].nonzero().flatten().tolist() == sorted(path)
    assert torch.equal(mask.diagonal(), torch.ones(5, dtype=torch.bool))


def test_packs_cover_all_sequences_within_the_limit() -> None:
    dice = random.Random(0)
    sequences = sorted(tuple(dice.randint(0, 2) for _ in range(dice.randint(1, 6))) for _ in range(60))
    assert sum(new_nodes(sequences)) == len(token_tree(sequences).parents)
    for limit in (1, 7, 20, 1000):
        packs = pack(sequences, limit)
        assert [i for part in packs for i in part] == list(range(60))
        sizes = [len(token_tree(sequences[part.start : part.stop]).parents) for part in packs]
        assert all(size <= limit or len(part) == 1 for size, part in zip(sizes, packs, strict=True))
    assert len(pack(sequences, 1000)) == 1
    assert pack([], 5) == []
