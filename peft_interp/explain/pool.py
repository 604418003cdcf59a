"""`CandidatePool`: texts that may explain a prompt, with the divergence of their answers on a few rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from peft_interp.explain.target import Target
from peft_interp.scoring.candidates import Candidate, place_candidate
from peft_interp.text.surrounding_text import SurroundingText


@dataclass(frozen=True)
class Found:
    """A text in the pool.

    Attributes:
        candidate: ids and text as they stand in a row.
        source: where it was found first.
        kl: KL(prompt || text) on the few rows, nats.
    """

    candidate: Candidate
    source: str
    kl: float


class CandidatePool:
    """Keeps every text once, as its own tokenization says it.

    Args:
        target: the few rows.
        beside: what a text stands beside.
        longest: most tokens of a text.
        tick: called with the pairs of text and row that were run.

    Attributes:
        found: by token ids.
        evaluations: pairs of text and row run so far; a gradient counts as three.
    """

    def __init__(self, target: Target, beside: SurroundingText, longest: int, tick: Callable[[int], Any]) -> None:
        self.target, self.beside, self.longest, self._tick = target, beside, longest, tick
        self.found: dict[tuple[int, ...], Found] = {}
        self.evaluations = 0

    def add(self, source: str, prompts: Sequence[Sequence[int]]) -> list[Found]:
        """Score the texts of these ids that are new, fit, and come back from their text as some ids.

        Returns:
            The new ones.
        """
        made: dict[tuple[int, ...], Candidate] = {}
        for ids in prompts:
            candidate = place_candidate(self.target.setup.tokenizer, ids[: self.longest], self.beside, self._fits)
            if candidate.fits and candidate.ids not in self.found:
                made.setdefault(candidate.ids, candidate)
        values = self.target.kl(list(made)) if made else []
        self.spend(len(made))
        new = [Found(candidate, source, kl) for candidate, kl in zip(made.values(), values, strict=True)]
        self.found |= {one.candidate.ids: one for one in new}
        return new

    def spend(self, passes: int) -> None:
        """Count passes over all the few rows."""
        pairs = passes * len(self.target.rows)
        self.evaluations += pairs
        self._tick(pairs)

    def best(self, count: int, source: str | None = None) -> list[Found]:
        """The nearest to the prompt's answers, nearest first; of one source or of all."""
        chosen = [one for one in self.found.values() if source in (None, one.source)]
        return sorted(chosen, key=lambda one: one.kl)[:count]

    def _fits(self, ids: Sequence[int]) -> bool:
        return 0 < len(ids) <= self.longest
