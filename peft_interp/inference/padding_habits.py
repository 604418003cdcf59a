"""How a model counts positions and which column its classifier reads: what padding in the wrong place would spoil."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from peft_interp.inference.eval_mode import eval_mode
from peft_interp.inference.models import input_embeddings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_last_read: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
_first: WeakKeyDictionary[nn.Module, tuple[int, int]] = WeakKeyDictionary()


def first_position(model: nn.Module) -> int:
    """The position id of a row's first token: 0, or what follows the padding's own (2 in RoBERTa and its kin)."""
    return _positions_of(model)[0]


def position_ids_for(model: nn.Module, attention_mask: Tensor) -> Tensor:
    """(batch, length) position ids as the model would count them: attended tokens only, from its first position."""
    first, padding = _positions_of(model)
    attended = attention_mask.ne(0)
    counted = (attended.long().cumsum(dim=1) - 1).clamp_min(0) + first
    return counted if first == 0 else counted.where(attended, padding)


def _positions_of(model: nn.Module) -> tuple[int, int]:
    if model not in _first:
        counting = [m for m in model.modules() if hasattr(m, "create_position_ids_from_inputs_embeds")]
        padding = getattr(counting[0], "padding_idx", None) if counting else None
        _first[model] = (0, 0) if padding is None else (int(padding) + 1, int(padding))
    return _first[model]


def reads_last_column(model: PreTrainedModel) -> bool:
    """Whether a classifier pools the last column of rows that come as embeddings, padding or not, as decoders' do.

    Tried once, not looked up: heads have many names. A row with padding after it gives another answer then.
    """
    if model not in _last_read:
        _last_read[model] = _tried(model)
    return _last_read[model]


def _tried(model: PreTrainedModel) -> bool:
    if model.config.is_encoder_decoder:
        return False
    weight = input_embeddings(model).weight
    ids = torch.arange(3, 9, device=weight.device).remainder(max(1, weight.shape[0])).unsqueeze(0)  # (1, 6)
    try:
        with eval_mode(model), torch.random.fork_rng(devices=[]):
            rows = input_embeddings(model).forward(ids)
            short = _answers(model, rows[:, :3])
            long = _answers(model, rows, 3)
    except Exception:  # whatever unknown code may raise: no such rows are given to it then
        return hasattr(model, "score")
    return not torch.allclose(short, long, rtol=1e-2, atol=1e-3 * float(short.abs().max()))


def _answers(model: PreTrainedModel, rows: Tensor, attended: int | None = None) -> Tensor:
    mask = torch.ones(rows.shape[:2], dtype=torch.long, device=rows.device)
    if attended is not None:
        mask[:, attended:] = 0
    logits: Tensor = model(inputs_embeds=rows, attention_mask=mask, return_dict=True).logits
    return logits.float()
