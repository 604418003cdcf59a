"""Small changes of a prompt as lists of ids; each draws from a `random.Random` and returns a new list."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random


def deleted(ids: Sequence[int], rng: Random, most: int = 2) -> list[int]:
    """Without one run of 1 to `most` tokens; at least one token stays."""
    count = rng.randint(1, max(1, min(most, len(ids) - 1)))
    start = rng.randrange(len(ids) - count + 1)
    return [*ids[:start], *ids[start + count :]] or list(ids)


def swapped(ids: Sequence[int], rng: Random) -> list[int]:
    """With two tokens in each other's place."""
    changed = list(ids)
    if len(ids) > 1:
        i, j = rng.sample(range(len(ids)), 2)
        changed[i], changed[j] = changed[j], changed[i]
    return changed


def crossed(first: Sequence[int], second: Sequence[int], rng: Random) -> list[int]:
    """The beginning of one prompt and the end of another."""
    return [*first[: rng.randint(1, len(first))], *second[rng.randrange(len(second)) :]]
