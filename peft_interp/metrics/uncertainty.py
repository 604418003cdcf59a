"""Means over rows with their standard errors, paired differences and confidence intervals.

Two prompts that answer the same rows are compared row by row: what makes a row hard for both cancels, so that the
error of the mean difference is smaller than the errors of the two means suggest. The row is the unit: several labelled
tokens of one row are not independent of each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over rows with its standard error.

    Attributes:
        mean: in the units of what was measured.
        standard_error: of the mean, the same units, >= 0; None for fewer than two rows.
        rows: independent rows it rests on.
    """

    mean: float
    standard_error: float | None
    rows: int

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Student's interval for the mean, lower and upper end; (-inf, inf) where nothing is known.

        Args:
            confidence: share of such intervals that hold the true mean, 0 to 1 (exclusive).
        """
        if self.rows < 2 or self.standard_error is None:
            return -math.inf, math.inf
        reach = float(stdtrit(self.rows - 1, (1 + confidence) / 2)) * self.standard_error
        return self.mean - reach, self.mean + reach


class RowValues:
    """Numbers that belong to rows (each labelled token's loss, say), as batches bring them."""

    def __init__(self) -> None:
        self.sums: dict[int, float] = {}
        self.counts: dict[int, int] = {}

    def add(self, rows: Iterable[int], values: Iterable[float]) -> None:
        """Add one number for each of `rows`, the rows' numbers; a row may come several times."""
        for row, value in zip(rows, values, strict=True):
            self.sums[row] = self.sums.get(row, 0.0) + float(value)
            self.counts[row] = self.counts.get(row, 0) + 1

    def estimate(self, ends: Sequence[float] = ()) -> Estimate | None:
        """The mean over all numbers, with the error that comes from drawing rows; None for no row."""
        rows = list(self.sums)
        return mean_of([self.sums[row] for row in rows], [self.counts[row] for row in rows], ends)

    def minus(self, other: RowValues, ends: Sequence[float] = ()) -> Estimate | None:
        """The mean of these numbers less `other`'s on the rows that both have; None for no such row.

        Args:
            other: of another side, with equally many numbers for a row.
            ends: as in `mean_of`.
        """
        rows = [row for row in self.sums if row in other.sums]
        differences = [self.sums[row] - other.sums[row] for row in rows]
        return mean_of(differences, [self.counts[row] for row in rows], ends)


def mean_of(sums: Sequence[float], counts: Sequence[int] | None = None, ends: Sequence[float] = ()) -> Estimate | None:
    """A mean over rows that may hold several numbers each: sum of sums by sum of counts.

    The error is that of a ratio of two means (Cochran, Sampling Techniques, 1977, section 6.3); for one number in each
    row that is the usual standard error.

    Args:
        sums: one for each row.
        counts: how many numbers each sum holds; None for one each.
        ends: the least and largest possible number. One row of each is added for the error alone, so that rows which
            all agree have one too (Bonett and Price 2012 for paired shares, Agresti and Caffo 2000 for single ones).

    Returns:
        The estimate; None for no row.
    """
    if not sums:
        return None
    weights = [1] * len(sums) if counts is None else list(counts)
    mean, size = math.fsum(sums) / sum(weights), fmean(weights)
    left = [total - mean * weight for total, weight in zip(sums, weights, strict=True)]
    left += [size * (end - mean) for end in ends]
    known = len(left) > 1 and all(math.isfinite(value) for value in left)
    return Estimate(mean, stdev(left) / (math.sqrt(len(left)) * size) if known else None, len(sums))


def share_of(share: float, rows: int) -> Estimate:
    """A share of rows (an accuracy), 0 to 1, with the error of a binomial to which one row of each kind is added."""
    count = max(rows, 0)
    adjusted = min(max((share * count + 1) / (count + 2), 0.0), 1.0)
    return Estimate(share, math.sqrt(adjusted * (1 - adjusted) / (count + 2)), count)
