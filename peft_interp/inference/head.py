"""Logits at chosen positions and for chosen tokens only: a hook on the language-model head, and label words' rows.

A head is wide (GPT-2: 30% of all multiply-adds), and most of what it computes is thrown away. The hook works in the
thread that set it and in no other, so that a model may serve several threads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PROBE_SIZE = 50.0  # far beyond ordinary logits, so that a soft cap shows


class HeadTap:
    """Forward pre-hook of a language-model head: keeps what enters it, and may cut it down to some positions.

    Args:
        places: (places,) int64, the positions that go on, as indices into the flattened (batch, length); None for all.

    Attributes:
        states: what came, (batch, length, dim).
        hidden: what went in, (1, places, dim) where it was cut down.
    """

    def __init__(self, places: Tensor | None) -> None:
        self.places = places
        self.states: Tensor | None = None
        self.hidden: Tensor | None = None
        self._thread = threading.get_ident()

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """What the head gets in place of its arguments; None, which changes nothing, in another thread."""
        if threading.get_ident() != self._thread:
            return None
        self.states = hidden = args[0]
        if self.places is not None:
            hidden = hidden.flatten(0, 1).index_select(0, self.places.to(hidden.device)).unsqueeze(0)
        self.hidden = hidden
        return (hidden, *args[1:])


@contextmanager
def tapped_head(model: PreTrainedModel, places: Tensor | None = None) -> Iterator[HeadTap]:
    """While open, `model`'s head runs only at `places`, as in `HeadTap`, and its input is kept."""
    tap = HeadTap(places)
    handle = model.get_output_embeddings().register_forward_pre_hook(tap)
    try:
        yield tap
    finally:
        handle.remove()


def nowhere(like: Tensor) -> Tensor:
    """No places at all: a head that is tapped there computes nothing."""
    return torch.empty(0, dtype=torch.long, device=like.device)


def places_of(mask: Tensor) -> Tensor:
    """(places,) where (batch, length) `mask` is true, row by row. How many there are is read: a GPU is waited for."""
    return mask.flatten().nonzero().squeeze(1)


def answer_logits_at(
    model: PreTrainedModel, places: Tensor, label_ids: Tensor | None, rows_of_head: bool, **inputs: Any
) -> Tensor:
    """Run a model and return logits at some positions.

    Args:
        model: with a head of its own.
        places: (places,) int64 indices into the flattened (batch, length) of the inputs.
        label_ids: (labels,) tokens to return; None for the whole vocabulary.
        rows_of_head: multiply with these tokens' rows only (see `head_is_linear`), not with the whole head.
        inputs: for the model.

    Returns:
        (places, labels or vocabulary) fp32.
    """
    if label_ids is None or not rows_of_head:
        with tapped_head(model, places):
            logits = model(**inputs).logits[0]
        return (logits if label_ids is None else logits[:, label_ids.to(logits.device)]).float()
    with tapped_head(model, places) as tap, tapped_head(model, nowhere(places)):  # the head itself sees nothing
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


def head_is_linear(model: PreTrainedModel, label_ids: Tensor) -> bool:
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
    thread = threading.get_ident()
    handle = head.register_forward_pre_hook(
        lambda module, args: (probe, *args[1:]) if threading.get_ident() == thread else None
    )
    try:
        found = model(input_ids=label_ids[:1].unsqueeze(0)).logits[0][:, label_ids.to(weight.device)].float()
    finally:
        handle.remove()
    expected = label_rows(head, probe[0], label_ids).float()
    tolerance = 1e-5 if weight.dtype in (torch.float32, torch.float64) else 1e-2
    return bool(torch.allclose(found, expected, rtol=tolerance, atol=tolerance * _PROBE_SIZE))
