"""Attention of one packed row `prompt | row 1 | row 2 | ...`, in which every row sees the prompt and itself.

All rows of a batch begin with the same prompt, so the linear layers of the model need to see it only once. The packed
row goes through the unchanged model as a batch of one, with position ids that start again after the prompt for every
row. Only attention has to know about rows; `transformers` lets an attention function be registered by name for that,
and hands a 4-D attention mask through to it as it is. Ours is no mask: its shape says how the row is packed, so nothing
is kept outside the call, and threads cannot mix up two steps.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from peft_interp.inference.compilation import inside_graphs

NAME = "peft_interp_one_pass"
_BEYOND_US = ("softcap", "sliding_window", "s_aux", "position_bias", "head_mask", "alibi")


class UnsupportedAttentionError(Exception):
    """A layer asks for a kind of attention that the packed row cannot give."""


def packing(prefix: int, batch: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Position ids of a packed row, and what `attention` reads in place of a mask.

    Args:
        prefix: tokens that all rows share.
        batch: number of rows.
        length: tokens of each row.
        device: where the model runs.

    Returns:
        (1, prefix + batch * length) position ids, and an int32 tensor of shape (1, prefix, 1, batch + 1).
    """
    own = torch.arange(prefix, prefix + length, device=device).expand(batch, -1).reshape(-1)
    positions = torch.cat((torch.arange(prefix, device=device), own)).unsqueeze(0)
    return positions, unpacked(device).expand(-1, prefix, -1, batch + 1)


def unpacked(device: torch.device) -> Tensor:
    """What stands for the mask of ordinary rows without padding in front of a token: causal attention, no mask made."""
    return torch.zeros(1, 1, 1, 1, dtype=torch.int32, device=device)


@inside_graphs
def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention function for `transformers.AttentionInterface`; without a packed row it is the stock `sdpa`.

    The queries of the prompt are repeated for every row, as keys and values are: plain causal attention without a mask
    then gives every row what it needs, in the fastest kernel there is, and of the prompt's results all but one copy
    are left. Attention is the small part of a layer; its linear maps see the prompt once.

    Args:
        module: the attention layer.
        query: (1, heads, tokens, head dim).
        key: (1, key heads, tokens, head dim).
        value: as `key`.
        attention_mask: what `packing` or `unpacked` returned.
        scaling: of the scores.
        dropout: probability, 0 outside training.
        kwargs: what else the layer passes.

    Returns:
        (1, tokens, heads, head dim), and None for the weights.

    Raises:
        UnsupportedAttentionError: the layer caps scores, has sinks, a window or a bias, or is not causal.
    """
    if attention_mask is None or attention_mask.dtype != torch.int32 or attention_mask.shape[3] == 1:
        mask = None if attention_mask is None or attention_mask.dtype == torch.int32 else attention_mask
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, mask, scaling=scaling, dropout=dropout, **kwargs
        )
    causal = kwargs.get("is_causal", getattr(module, "is_causal", True))
    if causal is False or any(kwargs.get(name) is not None for name in _BEYOND_US):
        raise UnsupportedAttentionError(type(module).__name__)
    prefix, batch = attention_mask.shape[1], attention_mask.shape[3] - 1
    return packed_rows(query, key, value, prefix, batch, scaling, dropout), None


@inside_graphs
def packed_rows(
    query: Tensor, key: Tensor, value: Tensor, prefix: int, batch: int, scaling: float | None, dropout: float
) -> Tensor:
    """Causal attention of each row after the prefix: (1, heads, tokens, dim) -> (1, tokens, heads, dim)."""
    if value.shape[3] == query.shape[3]:
        query, key, value = _by_rows((query, key, value), prefix, batch)
    else:
        (query, key), (value,) = _by_rows((query, key), prefix, batch), _by_rows((value,), prefix, batch)
    grouped = query.shape[1] != key.shape[1]
    out = scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, dropout_p=dropout, enable_gqa=grouped
    ).transpose(1, 2)  # (batch, prefix + length, heads, head dim)
    shared, own = out.split([prefix, out.shape[1] - prefix], dim=1)
    return torch.cat((shared[0], *own.unbind())).unsqueeze(0)


@inside_graphs
def _by_rows(packed: Sequence[Tensor], prefix: int, batch: int) -> tuple[Tensor, ...]:
    """Each (1, heads, prefix + batch * length, dim) -> (batch, heads, prefix + length, dim), together: few kernels."""
    together = torch.cat(tuple(packed), dim=1)
    shared, own = together.split([prefix, together.shape[2] - prefix], dim=2)
    own = own.squeeze(0).unflatten(1, (batch, -1)).transpose(0, 1)  # (batch, all heads, length, dim)
    rows = torch.cat((shared.expand(batch, -1, -1, -1), own), dim=2)
    return rows.split([x.shape[1] for x in packed], dim=1)


class _Switch:
    """Counts the passes that want our attention on a config, so that the last one puts the user's back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: dict[int, tuple[int, str | None]] = {}  # id of a config: passes, and what it had before

    def enter(self, config: PreTrainedConfig) -> None:
        with self._lock:
            passes, before = self._inside.get(id(config), (0, config._attn_implementation))
            self._inside[id(config)] = (passes + 1, before)
            config._attn_implementation = NAME

    def leave(self, config: PreTrainedConfig) -> None:
        with self._lock:
            passes, before = self._inside.pop(id(config))
            if passes > 1:
                self._inside[id(config)] = (passes - 1, before)
            else:
                config._attn_implementation = before


_switch = _Switch()


@contextmanager
def packed_attention(model: PreTrainedModel) -> Iterator[None]:
    """While open, `model`'s layers use `attention`; for a pass without a packed row that is the stock `sdpa`."""
    config = model.config.get_text_config()
    _switch.enter(config)
    try:
        yield
    finally:
        _switch.leave(config)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
