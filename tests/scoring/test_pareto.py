"""Non-dominated sorting, crowding, hypervolume and knee, on points whose answers are known."""

from __future__ import annotations

import math

import pytest
import torch

from peft_interp.scoring.pareto import best_order, crowding, dominates, hypervolume, knee, ranks


def test_ranks_peel_one_front_after_the_other() -> None:
    points = torch.tensor([[3.0, 1.0], [1.0, 3.0], [2.0, 0.5], [0.5, 2.0], [0.0, 0.0]])
    assert ranks(points).tolist() == [0, 0, 1, 1, 2]


def test_equal_points_do_not_beat_each_other() -> None:
    points = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    assert not dominates(points).any()
    assert ranks(points).tolist() == [0, 0]


def test_ranks_agree_with_the_definition_on_random_points() -> None:
    points = torch.randint(0, 5, (40, 3), generator=torch.Generator().manual_seed(0)).float()
    rank = ranks(points)
    beaten = dominates(points)
    for i in range(len(points)):
        above = rank[beaten[:, i]]
        assert rank[i] == (0 if len(above) == 0 else above.max() + 1)


def test_ends_are_loneliest_and_gaps_are_counted_in_both_scores() -> None:
    lonely = crowding(torch.tensor([[0.0, 4.0], [1.0, 3.0], [4.0, 0.0]]))
    assert lonely[0] == lonely[2] == math.inf
    assert lonely[1] == pytest.approx(2.0)


def test_a_score_that_is_constant_says_nothing() -> None:
    assert crowding(torch.tensor([[1.0], [1.0], [1.0]])).tolist() == [math.inf, 0.0, math.inf]


def test_order_puts_rank_before_loneliness() -> None:
    points = torch.tensor([[0.0, 0.0], [2.0, 2.0], [3.0, 1.0], [1.0, 3.0]])
    assert best_order(points)[-1] == 0
    assert best_order(points)[2] == 1


def test_hypervolume_is_the_area_of_the_union() -> None:
    reference = torch.tensor([0.0, 0.0])
    assert hypervolume(torch.tensor([[2.0, 1.0], [1.0, 2.0]]), reference) == pytest.approx(3.0)
    assert hypervolume(torch.tensor([[2.0, 1.0], [1.0, 2.0], [1.0, 1.0]]), reference) == pytest.approx(3.0)
    assert hypervolume(torch.tensor([[-1.0, 5.0]]), reference) == 0.0
    with pytest.raises(ValueError, match="3 objectives"):
        hypervolume(torch.zeros(2, 3), torch.zeros(3))


def test_the_knee_bends_farthest_from_the_line() -> None:
    assert knee(torch.tensor([[10.0, 0.0], [9.0, 0.8], [0.0, 1.0]])) == 1
    assert knee(torch.tensor([[10.0, 0.0], [0.0, 1.0]])) == 0
    assert knee(torch.tensor([[1.0, 1.0]])) == 0
