"""Which prompt is the best: one number for a prompt that is comparable over a whole run, and who beats whom."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from peft_interp.scoring.archive import Archive, ScoredPrompt, Scores


@dataclass(frozen=True)
class Best:
    """The best prompt so far.

    Attributes:
        ids: token ids of the task model.
        text: as a person reads it.
        score: what it was chosen by, higher is better.
        reward: the task's reward in its own units.
        split: "dev" for a held-out score, else "train".
    """

    ids: tuple[int, ...]
    text: str
    score: float
    reward: float
    split: str

    def beats(self, other: Best | None) -> bool:
        """Whether this one replaces `other`; any held-out score replaces any training score, and never the reverse."""
        if other is None or self.split != other.split:
            return other is None or self.split == "dev"
        return self.score > other.score


def total_score(scores: Scores, weights: Mapping[str, float], reference: Mapping[str, tuple[float, float]]) -> float:
    """One number for a prompt; higher is better.

    A single reward is taken as it is, as published. Several are standardised by their mean and std in the run's first
    step, and mixed with the weights of the training reward.

    Args:
        scores: of the prompt.
        weights: of the rewards; negative where lower is better.
        reference: mean and std of each reward.

    Returns:
        The score. A reward that does not apply adds nothing, as does one without a reference, which would be compared
        raw; -inf where no reward applies.
    """
    values = {name: value for name in weights if (value := scores[name]) is not None}
    if not values:
        return -math.inf
    if len(weights) == 1:
        return sum(weights[name] * value for name, value in values.items())
    total = 0.0
    for name, value in values.items():
        centre, spread = reference.get(name, (value, 1.0))
        total += weights[name] * (value - centre) / spread
    return total


def best_unseen(
    archive: Archive, score: Callable[[Scores], float], count: int, split: str = "dev"
) -> list[ScoredPrompt]:
    """The `count` prompts of best training score that may be chosen and have no score yet on all examples of `split`.

    Where steps use parts of the training examples, a prompt's best score on any part counts.
    """
    best: dict[tuple[int, ...], tuple[float, ScoredPrompt]] = {}
    for record in archive.records:
        if record.split == "train" and record.fits and archive.find(record.ids, split) is None:
            value = score(record.scores)
            if record.ids not in best or value > best[record.ids][0]:
                best[record.ids] = (value, record)
    ordered = sorted(best.values(), key=lambda pair: -pair[0])
    return [record for _, record in ordered[:count]]


def statistics(scores: Sequence[Scores], names: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Mean and std of every reward over some prompts; std 1 where it is constant."""
    known = {name: [value for s in scores if (value := s[name]) is not None] for name in names}
    return {name: (mean(values), std(values) or 1.0) for name, values in known.items() if values}


def mean(values: Sequence[float]) -> float:
    """Their mean."""
    return sum(values) / len(values)


def std(values: Sequence[float]) -> float:
    """Their population's standard deviation."""
    centre = mean(values)
    return math.sqrt(sum((value - centre) ** 2 for value in values) / len(values))
