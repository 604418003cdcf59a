"""Which examples prompts are tried on first, so that poor ones do not cost a pass over all of them."""

from __future__ import annotations

from collections import Counter
from random import Random

from peft_interp.scoring.examples import Examples

GROWTH = 4  # each round uses so many times the examples of the one before


def screening_rounds(train: Examples, first: int | None, seed: int) -> list[tuple[int, ...] | None]:
    """Places of the examples of every round, the same in the whole run, so that prompts of different steps compare.

    Args:
        train: all examples.
        first: how many the first round has; None: all.
        seed: of their choice.

    Returns:
        Rounds that contain each other and hold the labels in equal parts where there are label words; the last is
        None, for all examples.
    """
    total, rounds = len(train), []
    order = Random(seed).sample(range(total), total)
    if train.gold is not None:
        labels, turn = train.gold.tolist(), {}
        seen: Counter[int] = Counter()
        for i in order:
            turn[i] = seen[labels[i]]  # how many of its label stand before it
            seen[labels[i]] += 1
        order.sort(key=lambda i: turn[i])
    size = first or total
    while size < total:
        rounds.append(tuple(sorted(order[:size])))
        size *= GROWTH
    return [*rounds, None]
