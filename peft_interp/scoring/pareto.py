"""Trade-offs between several scores: who is beaten by whom, who stands alone, which point is the bend of the curve.

Points are rows of a tensor (points, objectives); in every column more is better.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def dominates(points: Tensor) -> Tensor:
    """(points, points) bool: whether row i is at least as good as row j in everything and better in something."""
    a, b = points.unsqueeze(1), points.unsqueeze(0)  # (n, 1, m), (1, n, m)
    return (a >= b).all(-1) & (a > b).any(-1)


def ranks(points: Tensor) -> Tensor:
    """Non-dominated sorting (NSGA-II, Deb et al. 2002): 0 for points nobody beats, 1 for those only 0s beat, ...

    Args:
        points: (n, objectives), finite.

    Returns:
        (n,) int64.
    """
    beaten_by = dominates(points)
    rank = torch.full((len(points),), -1, dtype=torch.long)
    left, level = torch.ones(len(points), dtype=torch.bool), 0
    while left.any():
        free = left & ~beaten_by[left].any(0)
        rank[free] = level
        left &= ~free
        level += 1
    return rank


def pareto_front(points: Tensor) -> list[int]:
    """Which points no other beats, in order: those of rank 0, for the cost of one sort.

    Args:
        points: (n, 2), finite; in both columns more is better.

    Returns:
        Their indices; of equal points all or none.
    """
    values, kept = points.tolist(), []
    top, highest = None, -math.inf
    for i in sorted(range(len(values)), key=lambda i: values[i], reverse=True):
        if values[i][1] > highest:  # nothing after it in this order can beat it
            top, highest = values[i], values[i][1]
        if values[i] == top:
            kept.append(i)
    return sorted(kept)


def crowding(points: Tensor) -> Tensor:
    """How lonely each point is: the sum over objectives of the gap between its neighbours, as a share of the range.

    Args:
        points: (n, objectives), of one rank.

    Returns:
        (n,) float64 >= 0, higher is lonelier; infinite for the first and last of every objective.
    """
    lonely = torch.zeros(len(points), dtype=torch.float64)
    for values in points.double().T:
        ordered, order = values.sort(stable=True)
        spread = ordered[-1] - ordered[0]
        gaps = torch.full_like(ordered, torch.inf)
        if spread > 0:
            gaps[1:-1] = (ordered[2:] - ordered[:-2]) / spread
        elif len(points) > 2:
            gaps[1:-1] = 0.0
        lonely[order] += gaps
    return lonely


def best_order(points: Tensor) -> list[int]:
    """Indices from best to worst: by rank, and within a rank the lonelier first, so that a cut keeps a spread."""
    rank, key = ranks(points), torch.zeros(len(points), dtype=torch.float64)
    for level in rank.unique():
        members = (rank == level).nonzero().flatten()
        key[members] = crowding(points[members])
    return sorted(range(len(points)), key=lambda i: (int(rank[i]), -float(key[i]), i))


def hypervolume(points: Tensor, reference: Tensor) -> float:
    """Area between some points of two objectives and a reference point that is worse than what matters.

    Args:
        points: (n, 2); what is not better than the reference in both adds nothing.
        reference: (2,).

    Returns:
        The area, >= 0, in the product of the objectives' units; higher is better.

    Raises:
        ValueError: not two objectives.
    """
    if points.shape[-1] != 2:
        raise ValueError(f"`points` has {points.shape[-1]} objectives; the area is defined for 2.")
    kept = points.double()[(points > reference).all(-1)] - reference.double()
    area, height = 0.0, 0.0
    for x, y in sorted(kept.tolist(), reverse=True):
        area += x * max(0.0, y - height)
        height = max(height, y)
    return area


def knee(points: Tensor) -> int:
    """The bend of a front: the point farthest above the line between its two ends, both scores scaled to 0 to 1.

    Args:
        points: (n, 2) a front, n >= 1.

    Returns:
        Its index. Of two points, or of points on a line, the best in the first score.
    """
    low, high = points.double().amin(0), points.double().amax(0)
    scaled = (points.double() - low) / (high - low).clamp_min(1e-12)
    above = scaled.sum(-1)  # the line between (1, 0) and (0, 1) is where the two add up to 1
    best = int(above.argmax())
    return best if above[best] > 1 + 1e-9 else int(points[:, 0].argmax())
