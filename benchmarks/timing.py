"""Interleaved timing: every repetition runs all candidates, so that a slow minute of the machine hits all of them."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch


def now(device: str) -> float:
    """Seconds on the wall clock, after the device has finished what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def interleave(
    candidates: Mapping[str, Callable[[], Sequence[float]]], repetitions: int, warmups: int
) -> dict[str, list[Sequence[float]]]:
    """Run all candidates in turn, in alternating order.

    Args:
        candidates: each runs once and returns the seconds it took (of several parts, if it likes).
        repetitions: how many runs of each are kept.
        warmups: how many runs of each come before them.

    Returns:
        For every candidate what it returned, one entry per repetition.
    """
    kept: dict[str, list[Sequence[float]]] = {name: [] for name in candidates}
    for repetition in range(-warmups, repetitions):
        names = list(candidates) if repetition % 2 == 0 else list(candidates)[::-1]
        for name in names:
            seconds = candidates[name]()
            if repetition >= 0:
                kept[name].append(seconds)
    return kept


def compare(ours: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """Time of ours over time of the other, from interleaved runs.

    Returns:
        Median seconds of both, `ratio` of the medians, `ratio_of_means` (which counts rare slow steps as well), and
        `ratio_spread`, the quartiles of the ratios of single repetitions.
    """
    pairs = [a / b for a, b in zip(ours, other, strict=True)]
    low, _, high = statistics.quantiles(pairs, n=4, method="inclusive") if len(pairs) > 1 else pairs * 3
    return {
        "ours_seconds": statistics.median(ours),
        "other_seconds": statistics.median(other),
        "ratio": statistics.median(ours) / statistics.median(other),
        "ratio_of_means": statistics.mean(ours) / statistics.mean(other),
        "ratio_spread": [low, high],
        "repetitions": len(pairs),
    }
