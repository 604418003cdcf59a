"""Rank agreement of a measure with human ratings, with bootstrap confidence intervals."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import kendalltau, spearmanr
from sklearn.metrics import roc_auc_score

RESAMPLES = 400


def agreement(ratings: Sequence[float], values: Sequence[float], kind: str, seed: int = 0) -> dict[str, object]:
    """How well a measure ranks texts as people do.

    Args:
        ratings: human ratings; 0 or 1 for `kind="auc"`.
        values: the measure, higher better; NaN ranks last.
        kind: "rank" for Spearman and Kendall (-1 to 1, 0 by chance), "auc" for the area under the ROC curve (0.5 by
            chance).
        seed: of the bootstrap.

    Returns:
        The statistics with 95% percentile intervals over resampled texts; None for a measure that never varies.
    """
    y, x = np.asarray(ratings, dtype=float), np.asarray(values, dtype=float)
    x = np.where(np.isnan(x), np.nanmin(x) - 1, x)
    statistics: dict[str, Callable[[np.ndarray, np.ndarray], float]] = (
        {"auc": roc_auc_score}
        if kind == "auc"
        else {"spearman": lambda a, b: spearmanr(a, b).statistic, "kendall": lambda a, b: kendalltau(a, b).statistic}
    )
    if np.ptp(x) == 0:
        return dict.fromkeys(statistics)
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(0, len(y), len(y)) for _ in range(RESAMPLES)]
    found: dict[str, object] = {}
    for name, statistic in statistics.items():
        resampled = [float(statistic(y[i], x[i])) for i in drawn if np.ptp(x[i]) and np.ptp(y[i])]
        low, high = np.quantile(resampled, [0.025, 0.975])
        found[name] = [round(float(value), 3) for value in (statistic(y, x), low, high)]
    return found
