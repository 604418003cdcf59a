"""Attention of one packed row `prompt | row 1 | row 2 | ...`, in which every row sees the prompt and itself.

All rows of a batch begin with the same prompt, so the linear layers of the model need to see it only once. The packed
row goes through the unchanged model as a batch of one, with position ids that start again after the prompt for every
row. Only attention has to know about rows; `transformers` lets an attention function be registered by name for that,
and hands a 4-D attention mask through to it as it is. Ours is no mask but says how the row is packed, so nothing is
kept outside the call, and threads and recomputation cannot mix up two steps.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "peft_interp_one_pass"
_BEYOND_US = ("softcap", "sliding_window", "s_aux", "position_bias", "head_mask", "alibi")
_FROM_BOTTOM_RIGHT = 2  # the efficient kernel's number for a causal mask whose last query sees the last key


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
        (1, prefix + batch * length) position ids, and int32 (2, prefix, 1, batch + 1): where the queries of each row
        end, the prefix counting to the first, and where its keys end, the prefix counting to every row.
    """
    own = torch.arange(prefix, prefix + length, device=device).expand(batch, -1).reshape(-1)
    positions = torch.cat((torch.arange(prefix, device=device), own)).unsqueeze(0)
    rows = torch.arange(batch + 1, device=device, dtype=torch.int32)  # (batch + 1,)
    queries = rows * length + (rows > 0) * prefix
    ends = torch.stack((queries.to(torch.int32), rows * (prefix + length)))
    return positions, ends.view(2, 1, 1, batch + 1).expand(-1, prefix, -1, -1)


def unpacked(device: torch.device) -> Tensor:
    """What stands for the mask of ordinary rows without padding in front of a token: causal attention, no mask made."""
    return torch.zeros(1, 1, 1, 1, dtype=torch.int32, device=device)


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention function for `transformers.AttentionInterface`; without a packed row it is the stock `sdpa`.

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
        UnsupportedAttentionError: the layer caps scores, has sinks, a window or a bias.
    """
    if attention_mask is None or attention_mask.dtype != torch.int32 or attention_mask.shape[3] == 1:
        mask = None if attention_mask is None or attention_mask.dtype == torch.int32 else attention_mask
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, mask, scaling=scaling, dropout=dropout, **kwargs
        )
    if any(kwargs.get(name) is not None for name in _BEYOND_US) or kwargs.get("is_causal", True) is False:
        raise UnsupportedAttentionError(type(module).__name__)
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    run = _in_one_kernel if _takes_unequal_rows(query) else _by_rows
    return run(query, key, value, attention_mask, scaling, dropout), None


def _by_rows(
    query: Tensor, key: Tensor, value: Tensor, packed: Tensor, scaling: float | None, dropout: float
) -> Tensor:
    """The prompt on its own, then all rows with the prompt's keys in front of theirs; runs on any device."""
    prefix, batch = packed.shape[1], packed.shape[3] - 1
    sizes, grouped = [prefix, query.shape[2] - prefix], query.shape[1] != key.shape[1]
    (first_q, q), (first_k, k), (first_v, v) = (x.split(sizes, dim=2) for x in (query, key, value))
    q, k, v = (x.squeeze(0).unflatten(1, (batch, -1)).transpose(0, 1) for x in (q, k, v))  # (batch, heads, length, dim)
    k = torch.cat((first_k.expand(batch, -1, -1, -1), k), dim=2)
    v = torch.cat((first_v.expand(batch, -1, -1, -1), v), dim=2)
    length = q.shape[2]
    seen = torch.ones(length, prefix + length, dtype=torch.bool, device=q.device).tril(prefix)
    options: dict[str, Any] = {"scale": scaling, "dropout_p": dropout, "enable_gqa": grouped}
    first = scaled_dot_product_attention(first_q, first_k, first_v, is_causal=True, **options)
    own = scaled_dot_product_attention(q, k, v, attn_mask=seen, **options)
    return torch.cat((first.squeeze(0).transpose(0, 1), own.transpose(1, 2).flatten(0, 1))).unsqueeze(0)


def _takes_unequal_rows(query: Tensor) -> bool:
    """Whether the device has kernels for rows of unequal length in this format."""
    if not query.is_cuda or torch.version.hip is not None:
        return False
    return query.dtype != torch.bfloat16 or _is_recent(query.device.index or 0)


@lru_cache
def _is_recent(device: int) -> bool:
    """Ampere or later, which bfloat16 and the flash kernel need."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _in_one_kernel(
    query: Tensor, key: Tensor, value: Tensor, packed: Tensor, scaling: float | None, dropout: float
) -> Tensor:
    """All rows in one kernel for rows of unequal length: the prompt is part of the first row's queries."""
    prefix, batch = packed.shape[1], packed.shape[3] - 1
    tokens = query.shape[2] - prefix
    queries = query.squeeze(0).transpose(0, 1)  # (tokens, heads, head dim)
    longest = prefix + tokens // batch

    def rows(x: Tensor) -> Tensor:
        """(batch, prefix + length, key heads, head dim): the prefix in front of every row."""
        first, own = x.squeeze(0).transpose(0, 1).split([prefix, tokens])
        return torch.cat((first.expand(batch, -1, -1, -1), own.unflatten(0, (batch, -1))), dim=1)

    keys, values = rows(key), rows(value)
    ends = packed[:, 0, 0]  # (2, batch + 1)
    halves = query.dtype != torch.float32
    if halves and query.shape[-1] % 8 == 0 and query.shape[-1] <= 256 and _is_recent(query.device.index or 0):
        out = torch.ops.aten._flash_attention_forward(
            queries, keys.flatten(0, 1), values.flatten(0, 1), ends[0], ends[1], longest, longest, dropout, True, False,
            scale=scaling,
        )  # fmt: skip
        return out[0].unsqueeze(0)  # type: ignore[no-any-return]
    if (copies := query.shape[1] // key.shape[1]) > 1:
        keys, values = (x.repeat_interleave(copies, dim=2) for x in (keys, values))
    keys, values = (x.flatten(0, 1).unsqueeze(0) for x in (keys, values))
    out = torch.ops.aten._efficient_attention_forward(
        queries.unsqueeze(0), keys, values, None, ends[0], ends[1], longest, longest, dropout, _FROM_BOTTOM_RIGHT,
        query.requires_grad or key.requires_grad, scale=scaling,
    )  # fmt: skip
    return out[0]  # type: ignore[no-any-return]


class _Switch:
    """Counts the passes that want our attention on a config, so that the last one puts the user's back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: dict[int, tuple[int, str | None]] = {}  # id of a config: passes, and what it had before

    def enter(self, config: Any) -> None:
        with self._lock:
            passes, before = self._inside.get(id(config), (0, config._attn_implementation))
            self._inside[id(config)] = (passes + 1, before)
            config._attn_implementation = NAME

    def leave(self, config: Any) -> None:
        with self._lock:
            passes, before = self._inside.pop(id(config))
            if passes > 1:
                self._inside[id(config)] = (passes - 1, before)
            else:
                config._attn_implementation = before


_switch = _Switch()


@contextmanager
def packed_attention(model: Any) -> Iterator[None]:
    """While open, `model`'s layers use `attention`; for a pass without a packed row that is the stock `sdpa`."""
    _switch.enter(model.config)
    try:
        yield
    finally:
        _switch.leave(model.config)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
