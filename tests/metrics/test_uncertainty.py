"""Means over rows and their errors: against textbook formulas, scipy, and intervals that hold as often as they say."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from peft_interp.metrics.uncertainty import Estimate, RowValues, mean_of, share_of


def test_one_number_in_each_row_is_the_usual_standard_error() -> None:
    values = np.random.default_rng(0).normal(2.0, 3.0, 40)
    found = mean_of(values.tolist())
    assert found.mean == pytest.approx(values.mean())
    assert found.standard_error == pytest.approx(stats.sem(values))
    low, high = stats.t.interval(0.95, 39, values.mean(), stats.sem(values))
    assert found.interval() == pytest.approx((low, high))


def test_paired_errors_are_those_of_the_differences() -> None:
    """What makes a row hard for both cancels."""
    rng = np.random.default_rng(1)
    hard, shift = rng.normal(0, 5, 60), rng.normal(0.3, 0.1, 60)
    one, other = RowValues(), RowValues()
    one.add(range(60), hard + shift)
    other.add(reversed(range(60)), hard[::-1])
    found = one.minus(other)
    assert found.mean == pytest.approx(shift.mean())
    assert found.standard_error == pytest.approx(stats.sem(shift))
    apart = math.hypot(one.estimate().standard_error, other.estimate().standard_error)
    assert found.standard_error < apart / 20


def test_tokens_of_one_row_do_not_count_as_rows() -> None:
    """Ten copies of each row's number say no more than one."""
    values = np.random.default_rng(2).normal(size=30)
    single, tenfold = RowValues(), RowValues()
    single.add(range(30), values)
    tenfold.add(np.repeat(range(30), 10).tolist(), np.repeat(values, 10))
    assert tenfold.estimate().mean == pytest.approx(single.estimate().mean)
    assert tenfold.estimate().standard_error == pytest.approx(single.estimate().standard_error)
    assert tenfold.estimate().rows == 30


def test_only_rows_of_both_sides_are_compared() -> None:
    one, other = RowValues(), RowValues()
    one.add([0, 1, 2], [1.0, 2.0, 9.0])
    other.add([0, 1, 5], [0.0, 0.5, 9.0])
    assert one.minus(other).rows == 2
    assert one.minus(other).mean == pytest.approx(1.25)
    assert one.minus(RowValues()) is None


def test_rows_that_all_agree_are_not_sure_beyond_doubt() -> None:
    found = mean_of([0.0] * 50, ends=(-1.0, 1.0))
    assert found.mean == 0
    assert 0.02 < found.standard_error < 0.04  # Bonett and Price: sqrt(2) / 52 and a little
    assert mean_of([0.0] * 5000, ends=(-1.0, 1.0)).standard_error < 0.001


@pytest.mark.parametrize("estimate", [mean_of([1.0]), mean_of([1.0, math.inf]), Estimate(0.5, None, 9)])
def test_what_is_not_known_has_no_interval(estimate: Estimate) -> None:
    assert estimate.standard_error is None
    assert estimate.interval() == (-math.inf, math.inf)


def test_a_share_has_the_error_of_agresti_and_caffo() -> None:
    adjusted = (0.8 * 200 + 1) / 202
    assert share_of(0.8, 200).standard_error == pytest.approx(math.sqrt(adjusted * (1 - adjusted) / 202))
    assert share_of(1.0, 20).standard_error > 0


@pytest.mark.parametrize("rows", [50, 200])
def test_intervals_of_paired_accuracies_hold_as_often_as_they_say(rows: int) -> None:
    """2,000 draws of rows that two prompts answer: the true difference lies inside in about 95 of 100."""
    rng, held = np.random.default_rng(3), 0
    chances = {1.0: 0.14, -1.0: 0.06, 0.0: 0.8}
    truth = sum(value * chance for value, chance in chances.items())
    for _ in range(2000):
        drawn = rng.choice(list(chances), size=rows, p=list(chances.values()))
        low, high = mean_of(drawn.tolist(), ends=(-1.0, 1.0)).interval()
        held += low <= truth <= high
    spread = NormalDist().inv_cdf(0.9999) * math.sqrt(0.95 * 0.05 / 2000)
    assert 0.95 - spread <= held / 2000 <= 0.95 + 0.03
