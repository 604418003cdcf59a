"""Which prompt of several is delivered: scores within one standard error of the best do not tell prompts apart.

The one-standard-error rule (Breiman et al., Classification and Regression Trees, 1984, section 3.4.3): of all that are
within one standard error of the best validation score, the simplest is chosen; here, the most fluent one. The best of
many noisy scores is partly luck, so that what looks like a loss is none on new data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from peft_interp.metrics.uncertainty import share_of

LEAST_ROWS = 30  # fewer say too little of their own standard error for a rule to rest on it


@dataclass(frozen=True)
class Contender:
    """A prompt as it is compared with others on the same rows.

    Attributes:
        score: what is chosen by, higher is better.
        error: standard error of the score over the rows; None where it is not known, and then the best score decides.
        nll: nats per token of its text, lower is more fluent; None where it is not known.
        flagged: a pattern that fools perplexity is in the text (repetition, say), so its `nll` says nothing.
        accuracy: share of right rows, 0 to 1; None where it is not known.
    """

    score: float
    error: float | None = None
    nll: float | None = None
    flagged: bool = False
    accuracy: float | None = None

    @property
    def fluency(self) -> tuple[bool, float]:
        """For a sort: lower is more readable."""
        unknown = self.nll is None or math.isnan(self.nll)
        return self.flagged or unknown, math.inf if unknown or self.nll is None else self.nll


def most_readable(contenders: Sequence[Contender], best: int | None = None) -> int:
    """The most fluent within one standard error of the best, and never one that another beats in accuracy and fluency.

    Where the standard error is not known (fewer than `LEAST_ROWS` rows, say), the best score decides.

    Args:
        contenders: at least one.
        best: the one that others may fall short of by its standard error; None: that of the highest score.

    Returns:
        Its index; of equals, the first of higher score.
    """
    indices = range(len(contenders))
    if best is None:
        best = max(indices, key=lambda i: contenders[i].score)
    error = contenders[best].error
    if error is None or math.isnan(error):
        return best
    least = contenders[best].score - error
    within = [i for i in indices if contenders[i].score >= least] or [best]
    chosen = min(within, key=lambda i: (contenders[i].fluency, -contenders[i].score))
    while better := [i for i in indices if _beats(contenders[i], contenders[chosen])]:
        chosen = max(better, key=lambda i: (contenders[i].accuracy or 0.0, contenders[i].score))
    return chosen


def _beats(one: Contender, other: Contender) -> bool:
    """More rows right, with a text that is no less fluent."""
    if one.accuracy is None or other.accuracy is None or math.isinf(one.fluency[1]):
        return False
    return one.accuracy > other.accuracy and one.fluency <= other.fluency


def accuracy_error(accuracy: float, rows: int) -> float | None:
    """Standard error of a share of `rows` rows, None of fewer than `LEAST_ROWS`.

    Of 0 or 1 too it is not 0, see `share_of`.
    """
    return None if rows < LEAST_ROWS else share_of(accuracy, rows).standard_error


def why(chosen: Contender, best: Contender, name: str) -> str:
    """Which score chose, in words.

    Args:
        chosen: what was chosen.
        best: of the highest score.
        name: of the score.
    """
    if chosen == best:
        return f"the best {name}, {best.score:.4g}"
    if best.error is not None and chosen.score >= best.score - best.error:
        return (
            f"the most fluent within one standard error ({best.error:.3g}) of the best {name}, {best.score:.4g}; its "
            f"own is {chosen.score:.4g}"
        )
    return f"accuracy and fluency, in which none beats it; its {name} is {chosen.score:.4g}, the best {best.score:.4g}"
