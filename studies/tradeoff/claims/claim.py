"""What a claim is, and the words and limits that all rules share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from studies.tradeoff.statistics import Paired

CONFIRMED, REFUTED, PARTLY, UNTESTED = "confirmed", "not confirmed", "partly confirmed", "not testable here"
NOTICEABLE, RARE, SIGNIFICANT = 0.02, 0.1, 0.05  # points of accuracy; a share; p
FEWEST = 5  # pairs, or prompts, that anything is said about


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        statement: what the paper says.
        verdict: one of the four above.
        rule: what decides.
        evidence: the numbers, one sentence each.
    """

    statement: str
    verdict: str
    rule: str
    evidence: tuple[str, ...]


def verdict_of(held: Sequence[bool]) -> str:
    """Of a rule that was asked of several methods."""
    if not held:
        return UNTESTED
    return CONFIRMED if all(held) else PARTLY if any(held) else REFUTED


def in_points(found: Paired) -> str:
    """A difference of accuracies in words."""
    low, high = 100 * found.low, 100 * found.high
    ps = f"{in_p(found.t_test)}, signed-rank {in_p(found.wilcoxon)}"
    return f"{100 * found.difference:+.1f} points ({low:+.1f} to {high:+.1f}, n {found.n}, {ps})"


def in_p(value: float) -> str:
    """A p value in words."""
    return "p < 0.001" if value < 0.001 else f"p {value:.3f}"
