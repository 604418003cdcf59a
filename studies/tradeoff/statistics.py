"""Means, spreads, intervals and paired tests, as scipy computes them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

_LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """Some values.

    Attributes:
        n: how many.
        mean: their mean.
        sd: sample standard deviation; NaN for one value.
        low, high: 95% interval of the mean (Student's t); the mean itself for one value.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """One method less another, on the same tasks and splits.

    Attributes:
        n: pairs.
        difference: mean difference.
        low, high: its 95% interval (Student's t).
        t_test: two-sided p of the paired t-test.
        wilcoxon: two-sided p of the signed-rank test; it cannot fall below 0.0625 with five pairs.
    """

    n: int
    difference: float
    low: float
    high: float
    t_test: float
    wilcoxon: float


def spread(values: Sequence[float]) -> Spread:
    """Mean and spread.

    Raises:
        ValueError: no values.
    """
    if not len(values):
        raise ValueError("there are no values to average.")
    mean = float(np.mean(values))
    low, high = _interval(values)
    return Spread(len(values), mean, float(np.std(values, ddof=1)) if len(values) > 1 else math.nan, low, high)


def paired(first: Mapping[Any, float], second: Mapping[Any, float]) -> Paired | None:
    """Compare on what both have; None where that is nothing.

    Args:
        first: a value for each unit.
        second: the same of what it is compared with.
    """
    units = [unit for unit in first if unit in second]
    if not units:
        return None
    one, other = np.array([first[unit] for unit in units]), np.array([second[unit] for unit in units])
    differences = one - other
    low, high = _interval(differences)
    if len(units) < 2 or not differences.any():
        return Paired(len(units), float(differences.mean()), low, high, 1.0, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all differences equal: p is 0 then
        t_test = float(stats.ttest_rel(one, other).pvalue)
        wilcoxon = float(stats.wilcoxon(one, other).pvalue)
    return Paired(len(units), float(differences.mean()), low, high, t_test, wilcoxon)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> tuple[float, int]:
    """Spearman's correlation, -1 to 1, and the number of pairs; NaN where one side never varies."""
    if len(first) < 3 or len(set(first)) < 2 or len(set(second)) < 2:
        return math.nan, len(first)
    return float(stats.spearmanr(first, second).statistic), len(first)


def spread_parts(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Standard deviations within and between groups, by one-way analysis of variance with random effects.

    Args:
        groups: two or more, each with two or more values.

    Returns:
        Within, and between with the part that the values within explain taken out; 0 where nothing is left.

    Raises:
        ValueError: fewer than two groups, or a group of one value.
    """
    sizes = np.array([len(group) for group in groups])
    if len(groups) < 2 or sizes.min() < 2:
        raise ValueError(f"groups of {sizes.tolist()} values have no parts; give two or more groups of two or more.")
    total, means = sizes.sum(), np.array([np.mean(group) for group in groups])
    within = sum(float(np.var(group)) * len(group) for group in groups) / (total - len(groups))
    grand = float((sizes * means).sum() / total)
    between = float((sizes * (means - grand) ** 2).sum()) / (len(groups) - 1)
    even = (total - (sizes**2).sum() / total) / (len(groups) - 1)
    return math.sqrt(within), math.sqrt(max(0.0, (between - within) / even))


def holm(values: Sequence[float]) -> list[float]:
    """p-values of several tests, corrected for their number (Holm 1979), in the order given."""
    corrected, highest = [1.0] * len(values), 0.0
    for rank, i in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        highest = max(highest, min(1.0, (len(values) - rank) * values[i]))
        corrected[i] = highest
    return corrected


def _interval(values: Any) -> tuple[float, float]:
    """Of the mean, by Student's t."""
    values = np.asarray(values, dtype=float)
    mean = float(values.mean())
    if len(values) < 2 or np.ptp(values) == 0:
        return mean, mean
    low, high = stats.t.interval(_LEVEL, len(values) - 1, loc=mean, scale=stats.sem(values))
    return float(low), float(high)
