"""A small logistic model with soft targets and coefficients of known sign, and its held-out scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from peft_interp.metrics.scrutability import FAULTS, Calibration, faults_of
from studies.calibration.features import Row

RIDGE = 1e-3  # on coefficients of inputs that are all of order one


@dataclass(frozen=True)
class Sample:
    """One kind of texts under one model.

    Attributes:
        rows: measures of each text.
        targets: how readable each is, 0 to 1.
        weight: of the whole kind in the fit.
        groups: a number for each text; texts made from one another share it, and stay in one fold.
    """

    rows: list[Row]
    targets: Sequence[float]
    weight: float
    groups: Sequence[int]


def design(rows: Sequence[Row]) -> np.ndarray:
    """(texts, faults) inputs of the score; a position that is not a number counts as that of shuffled text."""
    faults = [faults_of(row) for row in rows]
    return np.nan_to_num(np.array([[fault[name] for name in FAULTS] for fault in faults]), nan=1.0)


def fit(samples: Sequence[Sample], fold: int | None = None, folds: int = 5) -> Calibration:
    """Minimise the weighted cross-entropy, coefficients >= 0, without the texts of one fold.

    Args:
        samples: kinds of texts.
        fold: the fold left out; None fits on everything.
        folds: how many there are; a text is in fold `group % folds`.

    Returns:
        The score without a threshold (0).
    """
    inputs, targets, weights = [], [], []
    for sample in samples:
        kept = np.array([fold is None or group % folds != fold for group in sample.groups])
        inputs.append(design(sample.rows)[kept])
        targets.append(np.asarray(sample.targets, dtype=float)[kept])
        weights.append(np.full(kept.sum(), sample.weight / kept.sum()))
    x, y, w = np.concatenate(inputs), np.concatenate(targets), np.concatenate(weights)
    w = w / w.sum()

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        z = parameters[0] - x @ parameters[1:]
        error = w * (1 / (1 + np.exp(-z)) - y)
        value = (w * (np.logaddexp(0, z) - y * z)).sum() + RIDGE * (parameters[1:] ** 2).sum()
        return float(value), np.concatenate([[error.sum()], -(x.T @ error) + 2 * RIDGE * parameters[1:]])

    bounds = [(None, None)] + [(0.0, None)] * len(FAULTS)
    found = minimize(loss, np.zeros(1 + len(FAULTS)), jac=True, bounds=bounds, method="L-BFGS-B").x
    coefficients = {name: round(float(value), 4) for name, value in zip(FAULTS, found[1:], strict=True)}
    return Calibration(round(float(found[0]), 4), coefficients, 0.0, {})


def scores(calibration: Calibration, rows: Sequence[Row]) -> np.ndarray:
    """(texts,) scores, 0 to 1."""
    return np.array([calibration.score(dict(zip(FAULTS, row, strict=True))) for row in design(rows)])


def held_out_scores(samples: Sequence[Sample], folds: int = 5) -> list[np.ndarray]:
    """For each sample, every text's score by the fit that has not seen its fold."""
    fits = [fit(samples, fold, folds) for fold in range(folds)]
    found = []
    for sample in samples:
        by_fold = np.stack([scores(fitted, sample.rows) for fitted in fits])  # (folds, texts)
        found.append(by_fold[np.asarray(sample.groups) % folds, np.arange(len(sample.rows))])
    return found
