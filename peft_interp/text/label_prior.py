"""The label prior: how much a prompt favours a label word whatever the text says, and the numbers that take it away.

A language model finds one label word likelier than another before it has read anything, and a prompt moves that. One
number for each label, added to its log-probability, removes it (and is all that a calibrated prompt needs beside its
text). Three ways to estimate the numbers, none of which sees test rows:

* "batch": minus the mean log-probability over unlabelled rows (Batch Calibration, arXiv 2309.17249, which averages the
  probabilities; the mean of logarithms does not depend on how sure single rows are);
* "content_free": minus the log of the mean probability over texts that say nothing (arXiv 2102.09690, equation 1);
* "fitted": the numbers under which a few labelled rows are likeliest, logistic regression on nothing but them.

All are moved to mean 0, since a number that is added to every label changes nothing.
"""

from __future__ import annotations

import math
import random
import warnings

import torch
from torch import Tensor

from peft_interp.text.label_bias import CALIBRATIONS

CONTENT_FREE = ("N/A", "", "[MASK]")  # the texts of arXiv 2102.09690
FEWEST_ROWS, MOST_ROWS = 8, 64  # of the training rows; 32 and 64 gave the same on SmolLM2
PENALTY = 0.1  # on the squared numbers, for the sum over rows: a prior of about 3 nats around 0
_STEPS, _LONGEST_STEP = 200, 2.0


def batch_bias(log_probs: Tensor) -> Tensor:
    """Batch calibration: minus each label's mean log-probability over rows.

    Scores that it is added to do not change when a constant is added to one label's log-probabilities everywhere.

    Args:
        log_probs: (..., rows, labels) nats, of unlabelled rows.

    Returns:
        (..., labels) nats to add to each label's log-probability; mean 0.
    """
    return _centred(-log_probs.double().mean(-2))


def content_free_bias(log_probs: Tensor) -> Tensor:
    """Contextual calibration: minus the log of each label's mean probability over texts that say nothing.

    Args:
        log_probs: (..., texts, labels) log-probabilities over the label words, nats.

    Returns:
        (..., labels), as for `batch_bias`.
    """
    return _centred(math.log(log_probs.shape[-2]) - log_probs.double().logsumexp(-2))


def fitted_bias(log_probs: Tensor, gold: Tensor, penalty: float = PENALTY) -> Tensor:
    """The numbers b that minimise sum_rows -log softmax(log_probs + b)[gold] + penalty / 2 |b|^2.

    Args:
        log_probs: (..., rows, labels) nats.
        gold: (rows,) index of the right label.
        penalty: > 0; what keeps b finite where the labels can be told apart without error.

    Returns:
        (..., labels), as for `batch_bias`; mean 0 by itself.
    """
    scores, count = log_probs.double(), log_probs.shape[-1]
    wanted = torch.nn.functional.one_hot(gold.to(scores.device), count).double()  # (rows, labels)
    ridge = penalty * torch.eye(count, dtype=torch.float64, device=scores.device)
    bias = batch_bias(scores)
    for _ in range(_STEPS):  # Newton's, cut where a flat place would send it far away
        probs = (scores + bias.unsqueeze(-2)).softmax(-1)
        gradient = (probs - wanted).sum(-2) + penalty * bias
        curvature = torch.diag_embed(probs.sum(-2)) - probs.mT @ probs + ridge
        step = torch.linalg.solve(curvature, gradient)
        bias = bias - step * (_LONGEST_STEP / step.abs().amax(-1, keepdim=True).clamp_min(_LONGEST_STEP))
        if float(step.abs().max()) < 1e-10:
            break
    return _centred(bias)


def estimate_bias(calibration: str, log_probs: Tensor, gold: Tensor | None = None) -> Tensor:
    """The numbers by the name of their calibration.

    Args:
        calibration: "batch", "content_free" or "fitted".
        log_probs: (..., rows, labels) log-probabilities over the label words, nats.
        gold: (rows,) index of the right label, for "fitted".

    Returns:
        (..., labels) float64.

    Raises:
        ValueError: another name, scores that are not finite, fewer than `FEWEST_ROWS` rows, or for "fitted" rows
            without a label, or of one.
    """
    if calibration not in CALIBRATIONS[1:]:
        raise ValueError(f"`calibration={calibration!r}` estimates nothing; use one of {', '.join(CALIBRATIONS[1:])}.")
    if not bool(torch.isfinite(log_probs).all()):
        raise ValueError(
            "the label words' scores on the calibration rows are not finite, so no label prior can be estimated. Usual "
            "causes: a model whose weights or logits are not finite, or fp16 overflow (use bf16)."
        )
    if calibration == "content_free":
        return content_free_bias(log_probs)
    check_rows(log_probs.shape[-2])
    if calibration == "batch":
        return batch_bias(log_probs)
    check_gold(gold)
    assert gold is not None
    return fitted_bias(log_probs, gold)


def with_bias(log_probs: Tensor, bias: Tensor) -> Tensor:
    """Calibrated log-probabilities over the label words.

    Args:
        log_probs: (..., labels) nats.
        bias: (..., labels) nats.

    Returns:
        As `log_probs`, normalised again.
    """
    return (log_probs.double() + bias.to(log_probs.device)).log_softmax(-1).to(log_probs.dtype)


def _centred(bias: Tensor) -> Tensor:
    return bias - bias.mean(-1, keepdim=True)


def check_rows(count: int) -> None:
    """Whether there are enough calibration rows.

    Raises:
        ValueError: fewer than `FEWEST_ROWS`.
    """
    if count < FEWEST_ROWS:
        raise ValueError(
            f"{count} calibration row{'' if count == 1 else 's'} say too little about the label prior; give at least "
            f"{FEWEST_ROWS} training rows, or use `calibration='content_free'`, which needs none."
        )


def check_gold(gold: Tensor | None) -> None:
    """Whether labelled rows can tell labels apart.

    Raises:
        ValueError: no labels, or one.
    """
    if gold is None:
        raise ValueError("`calibration='fitted'` needs labelled rows; use 'batch' for rows without labels.")
    if len(gold.unique()) < 2:
        raise ValueError(
            f"all {len(gold)} calibration rows have the label {int(gold[0])}, so `calibration='fitted'` would only "
            "learn to answer it; give rows of every label, or use 'batch' or 'content_free'."
        )


def warn_of_one_label(count: int, calibration: str) -> None:
    """For "batch", which does not look at labels, where they are known all the same."""
    warnings.warn(
        f"all {count} calibration rows have the same label, so `calibration={calibration!r}` takes what they have in "
        "common for the label prior and takes it away; give rows of every label, or use 'content_free'. Where the "
        "labels only stand in for unknown ones, rows of all kinds are enough.",
        stacklevel=3,
    )


def drawn_rows(count: int, most: int = MOST_ROWS) -> list[int]:
    """Places of the rows that a prior is estimated on: at most `most` of `count`, always the same, in order."""
    return sorted(random.Random(0).sample(range(count), min(count, most)))
