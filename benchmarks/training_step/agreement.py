"""The fast step computes the same thing: its loss and gradient against the plain pass and against stock PEFT."""

from collections.abc import Mapping
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from benchmarks.training_step.setting import LABELS, Setting, adapted, random_batch, trained_parameter


def agreement(setting: Setting) -> list[dict[str, Any]]:
    """Relative errors of loss and gradient for both kinds of labels.

    Returns:
        Per kind of labels `plain_pass` (ours with `share_prefix=False`, perplexity term included) and `stock` (PEFT's
        prompt tuning on the same prompt vectors, without the term), each with `loss_error` and `gradient_error`.
    """
    return [
        {"labels": labels, "plain_pass": _against_plain(setting, labels), "stock": _against_stock(setting, labels)}
        for labels in LABELS
    ]


def _against_plain(setting: Setting, labels: str) -> dict[str, float]:
    batch = random_batch(setting, labels)
    shared, plain = (adapted(setting, "ours", share_prefix=share) for share in (True, False))
    _copy(trained_parameter(shared), trained_parameter(plain))
    return _errors(shared, plain, batch)


def _against_stock(setting: Setting, labels: str) -> dict[str, float]:
    batch = random_batch(setting, labels)
    ours, stock = adapted(setting, "ours", perplexity_weight=0.0), adapted(setting, "stock")
    encoder: Any = ours.prompt_encoder["default"]
    unit = float(encoder.unit)  # the latent starts on exact rows, in units of the coordinates
    _copy(trained_parameter(ours) * unit, trained_parameter(stock))
    return _errors(ours, stock, batch, unit)


@torch.no_grad()
def _copy(source: Tensor, target: Tensor) -> None:
    target.copy_(source)


def _errors(fast: PeftModel, reference: PeftModel, batch: Mapping[str, Tensor], unit: float = 1.0) -> dict[str, float]:
    (loss, gradient), (expected_loss, expected_gradient) = (_loss_and_gradient(m, batch) for m in (fast, reference))
    expected_gradient = expected_gradient * unit
    return {
        "loss_error": abs(loss / expected_loss - 1),
        "gradient_error": float((gradient - expected_gradient).norm() / expected_gradient.norm()),
    }


def _loss_and_gradient(model: PeftModel, batch: Mapping[str, Tensor]) -> tuple[float, Tensor]:
    loss = model(**batch).loss
    loss.backward()
    gradient = trained_parameter(model).grad
    assert gradient is not None
    return loss.item(), gradient
