"""The study's sums, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from tradeoff_records import measured, record, several_seeds, study

from studies.tradeoff.outcomes import (
    at_human_level,
    by_unit,
    is_fluent,
    judged,
    outcomes_of,
    over_units,
    select,
    shared_tasks,
    volumes,
)
from studies.tradeoff.patterns import GOOD, pattern
from studies.tradeoff.report.tables import compared, stuck
from studies.tradeoff.statistics import holm, paired, rank_correlation, spread, spread_parts


def test_hypervolume_and_human_level_by_hand() -> None:
    prompts = [measured(accuracy=0.75, nll=5.0), measured("front", 0.6, 2.5), measured("front", 0.55, 8.0)]
    outcomes = outcomes_of([record(0, "empty", measured(accuracy=0.5, nll=None)), record(0, "pez", *prompts)])
    # of the square 0.5 x 10: 0.25 x 5 under the first prompt, and 0.1 x 2.5 more under the second
    expected = (0.25 * 5 + 0.1 * 2.5) / (0.5 * 10)
    unit = ("films", 0)
    assert volumes(outcomes, "pez", per_run=True) == pytest.approx({unit: expected})
    assert at_human_level(outcomes, "pez") == {unit: 0.6}
    unread = outcomes_of([record(0, "empty", measured(accuracy=0.5, nll=None)), record(0, "pez", prompts[0])])
    assert at_human_level(unread, "pez") == {unit: 0.5}  # none is fluent enough: no prompt is left


def test_human_level_is_chosen_on_dev_not_on_test() -> None:
    lucky = measured("front", 0.9, 2.0, dev_accuracy=0.5)
    solid = measured("chosen", 0.7, 2.0, dev_accuracy=0.8)
    outcomes = outcomes_of([record(0, "pez", solid, lucky)])
    assert at_human_level(outcomes, "pez") == {("films", 0): 0.7}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"flags": {"blank": "..."}}, "special tokens"),
        ({"flags": {"repetition": "...", "label_leak": "..."}}, "repetition"),
        ({"flags": {"boilerplate": "..."}}, "boilerplate"),
        ({"flags": {"label_leak": "..."}, "readable": True}, "label leakage"),
        ({}, "word salad"),
        ({"readable": True, "accuracy": 0.51}, "fluent but ignored"),
        ({"readable": True}, "readable and at work"),
        ({"text": ""}, None),
    ],
)
def test_patterns(values: dict[str, Any], expected: str | None) -> None:
    outcomes = outcomes_of([record(0, "pez", measured(**values))])
    found = pattern(outcomes[0], {("films", 0): 0.5})
    assert found == expected


def test_label_words_are_no_leak_where_a_method_is_meant_to_name_them() -> None:
    leaking = measured(flags={"label_leak": "..."}, readable=True, text="good")
    runs = [
        record(0, "examples", leaking),
        record(0, "search", leaking),
        record(0, "search", leaking),
        record(0, "pez", leaking),
    ]
    runs[1]["values"], runs[3]["values"] = {"label_words": True}, {"label_words": True}
    assert [pattern(o, {}) for o in outcomes_of(runs)] == [GOOD, GOOD, "label leakage", "label leakage"]


def test_statistics_by_hand() -> None:
    found = spread([1.0, 2.0, 3.0])
    assert (found.n, found.mean, found.sd) == (3, 2.0, 1.0)
    assert (found.low, found.high) == pytest.approx((2.0 - 4.30265 / 3**0.5, 2.0 + 4.30265 / 3**0.5), abs=1e-4)
    assert spread([5.0, 5.0]).low == 5.0
    assert math.isnan(spread([4.0]).sd)
    with pytest.raises(ValueError, match="no values"):
        spread([])
    both = paired({"a": 1.0, "b": 3.0, "c": 9.0}, {"a": 0.0, "b": 1.0, "x": 5.0})
    assert (both.n, both.difference) == (2, 1.5)
    assert paired({"a": 1.0}, {"b": 1.0}) is None
    same = paired({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0})
    assert (same.t_test, same.wilcoxon) == (1.0, 1.0)
    # scipy.stats.f_oneway of these is F = 13.5: mean squares 1 within and 13.5 between, of 3 values each
    within, between = spread_parts([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert (within, between) == (pytest.approx(1.0), pytest.approx(((13.5 - 1) / 3) ** 0.5))
    assert spread_parts([[1.0, 3.0], [1.0, 3.0]])[1] == 0
    with pytest.raises(ValueError, match=r"groups of \[2, 1\] values"):
        spread_parts([[1.0, 2.0], [3.0]])
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert rank_correlation([1, 2, 3, 4], [1, 4, 9, 16]) == (pytest.approx(1.0), 4)
    assert math.isnan(rank_correlation([1, 2, 3], [5, 5, 5])[0])


def test_every_split_weighs_the_same_however_many_seeds_it_has() -> None:
    outcomes = outcomes_of(several_seeds())
    pez = select(outcomes, method="pez")
    assert by_unit(pez, lambda o: o.accuracy) == pytest.approx({("films", 0): 0.7, ("films", 1): 0.8})
    assert over_units(pez, lambda o: o.accuracy) == pytest.approx(0.75)
    assert over_units([], lambda o: o.accuracy) is None
    # a bad seed has no fluent prompt, so that none is left of it; a good one of the same split does not stand in
    assert at_human_level(outcomes, "pez") == pytest.approx({("films", 0): 0.65, ("films", 1): 0.8})
    good, bad = 0.3 * 8 / (0.5 * 10), 0.1 * 2 / (0.5 * 10)
    for per_run in (True, False):
        covered = volumes(outcomes, "pez", per_run=per_run)
        assert covered == pytest.approx({("films", 0): (good + bad) / 2, ("films", 1): good})
    assert stuck(outcomes).rows == [["empty", "", "2", "0", "0", "100"], ["pez", "", "3", "25", "0", "0"]]


def test_a_prompt_at_the_human_level_is_fluent() -> None:
    runs = [record(0, "pez", measured(nll=3.0), measured("front", nll=3.01), measured("front", nll=None))]
    assert [is_fluent(o) for o in outcomes_of(runs)] == [True, False, False]


def test_a_task_is_shared_by_more_than_two_thirds_of_the_families_or_as_many_as_there_are() -> None:

    def runs(**families: int) -> Any:
        place = [(task, number) for task, count in families.items() for number in range(count)]
        return outcomes_of([{**record(0, f"m{number}", measured()), "task": task} for task, number in place])

    assert shared_tasks(runs(all=9, most=7, few=6)) == ["all", "most"]
    apart = [*runs(one=3), *outcomes_of([{**record(0, f"x{n}", measured()), "task": "two"} for n in range(3)])]
    assert shared_tasks(apart) == ["one", "two"]


def test_averages_are_over_tasks_that_most_methods_share() -> None:
    runs = study(0.7) + [{**own, "task": "news"} for own in study(0.7)]
    runs += [{**own, "task": "rare"} for own in study(0.7) if own["method"] == "empty"]
    runs += [record(split, "search", measured()) for split in range(6)]
    outcomes = outcomes_of(runs)
    assert shared_tasks(outcomes) == ["films", "news"]
    found = compared(judged(outcomes), outcomes)
    assert {"pez", "search (films)"} < set(found)
    assert {o.task for o in found["empty"]} == {"films", "news"}


def test_hypervolume_counts_what_dev_chooses() -> None:
    lucky = measured("front", 0.9, 2.0, dev_accuracy=0.5)
    prompts = [measured("chosen", 0.75, 4.0, dev_accuracy=0.8), lucky, measured("front", 0.6, 6.0, dev_accuracy=0.7)]
    empty = record(0, "empty", measured(accuracy=0.5, nll=None))
    outcomes = outcomes_of([empty, record(0, "pez", *prompts)])
    # 0.4 from 2 to 4 nats, where only the first is as fluent; then 0.25, since dev prefers the second to all others
    expected = (0.4 * 2 + 0.25 * 6) / (0.5 * 10)
    assert volumes(outcomes, "pez", per_run=True) == pytest.approx({("films", 0): expected})
