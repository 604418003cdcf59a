"""Outputs of a language-model head only where an answer is asked, and only for the label words where that is exact."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from peft_interp.tuner.shared_prefix import tapped_head

_PROBE_SIZE = 50.0  # far beyond ordinary logits, so that a soft cap shows


def answer_logits_at(model: Any, keep: Tensor, label_ids: Tensor | None, rows_of_head: bool, **inputs: Any) -> Tensor:
    """Run a model and return logits at some positions.

    Args:
        model: with a head of its own.
        keep: (batch, length) bool, the positions.
        label_ids: (labels,) tokens to return; None for the whole vocabulary.
        rows_of_head: multiply with these tokens' rows only (see `head_is_linear`), not with the whole head.
        inputs: for the model.

    Returns:
        (positions, labels or vocabulary) fp32, row by row.
    """
    if label_ids is None or not rows_of_head:
        with tapped_head(model, keep):
            logits = model(**inputs).logits[0]
        return (logits if label_ids is None else logits[:, label_ids.to(logits.device)]).float()
    kept = int(keep.sum())
    with tapped_head(model, keep) as tap, tapped_head(model, keep.new_zeros(1, kept)):  # the head itself sees nothing
        model(**inputs)
    assert tap.hidden is not None
    return label_rows(model.get_output_embeddings(), tap.hidden[0], label_ids).float()


def label_rows(head: nn.Module, hidden: Tensor, label_ids: Tensor) -> Tensor:
    """Logits of a few tokens, (positions, labels), from the states that enter a linear head, (positions, dim)."""
    weight, bias = head.weight, getattr(head, "bias", None)
    assert isinstance(weight, Tensor)
    ids = label_ids.to(weight.device)
    chosen = None if bias is None else bias[ids]
    return nn.functional.linear(hidden.to(weight.device, weight.dtype), weight[ids], chosen)


def head_is_linear(model: Any, label_ids: Tensor) -> bool:
    """Whether the label words' logits are just their rows of the head: no scaling, soft cap or adapter after it.

    Tried rather than looked up: states that give logits of about +50 and -50 are put before the head, and what the
    model returns is compared.
    """
    head = model.get_output_embeddings()
    weight = getattr(head, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2 or not weight.is_floating_point():
        return False
    rows = weight[label_ids.to(weight.device)].float()
    probe = rows * _PROBE_SIZE / rows.square().sum(-1, keepdim=True).clamp_min(1e-12)
    probe = torch.cat((probe, -probe)).to(weight.dtype).unsqueeze(0)  # (1, 2 * labels, dim)
    handle = head.register_forward_pre_hook(lambda module, args: (probe, *args[1:]))
    try:
        found = model(input_ids=label_ids[:1].unsqueeze(0)).logits[0][:, label_ids.to(weight.device)].float()
    finally:
        handle.remove()
    expected = label_rows(head, probe[0], label_ids).float()
    tolerance = 1e-5 if weight.dtype in (torch.float32, torch.float64) else 1e-2
    return bool(torch.allclose(found, expected, rtol=tolerance, atol=tolerance * _PROBE_SIZE))
