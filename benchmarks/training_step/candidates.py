"""Faster still, perhaps: kernels that only a GPU has and that were never run on one, measured before they are trusted.

Nothing of the package uses them. Where a run on a GPU shows that one is right and pays, it can move there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from peft_interp.tuner import one_pass, projection

_FROM_BOTTOM_RIGHT = 2  # the efficient kernel's number for a causal mask whose last query sees the last key
_SCALES = {torch.bfloat16: 1.0, torch.float16: 1024.0}  # keeps the small parts of a latent in fp16's normal range


def unequal_rows(query: Tensor, key: Tensor, value: Tensor, prefix: int, batch: int, scaling: float | None) -> Tensor:
    """A packed row's attention in one kernel for rows of unequal length: the prompt belongs to the first row's queries.

    No query is repeated. The functions are private ones of PyTorch.

    Args:
        query: (1, heads, prefix + batch * length, dim).
        key: (1, key heads, tokens, dim).
        value: as `key`.
        prefix: tokens of the prompt.
        batch: rows.
        scaling: of the scores.

    Returns:
        (1, tokens, heads, dim).
    """
    tokens = query.shape[2] - prefix
    length = tokens // batch
    queries = query.squeeze(0).transpose(0, 1)  # (tokens, heads, dim)
    numbers = torch.arange(batch + 1, device=query.device, dtype=torch.int32)
    ends = ((numbers * length + (numbers > 0) * prefix).int(), (numbers * (prefix + length)).int())
    longest = prefix + length

    def rows(x: Tensor) -> Tensor:
        shared, own = x.squeeze(0).transpose(0, 1).split([prefix, tokens])
        return torch.cat((shared.expand(batch, -1, -1, -1), own.unflatten(0, (batch, -1))), dim=1)

    keys, values = rows(key), rows(value)  # (batch, prefix + length, key heads, dim)
    if query.dtype != torch.float32:
        out = torch.ops.aten._flash_attention_forward(
            queries, keys.flatten(0, 1), values.flatten(0, 1), *ends, longest, longest, 0.0, True, False, scale=scaling
        )
        return out[0].unsqueeze(0)  # type: ignore[no-any-return]
    if (copies := query.shape[1] // key.shape[1]) > 1:
        keys, values = (x.repeat_interleave(copies, dim=2) for x in (keys, values))
    keys, values = (x.flatten(0, 1).unsqueeze(0) for x in (keys, values))
    out = torch.ops.aten._efficient_attention_forward(
        queries.unsqueeze(0), keys, values, None, *ends, longest, longest, 0.0, _FROM_BOTTOM_RIGHT, True, scale=scaling
    )
    return out[0]  # type: ignore[no-any-return]


@contextmanager
def with_unequal_rows() -> Iterator[None]:
    """While open, packed rows take `unequal_rows`."""
    stock = one_pass.packed_rows

    def packed_rows(*parts: Any, **options: Any) -> Tensor:
        query, key, value, prefix, batch, scaling, _ = parts
        return unequal_rows(query, key, value, prefix, batch, scaling)

    one_pass.packed_rows = packed_rows
    try:
        yield
    finally:
        one_pass.packed_rows = stock


def split_product(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right` in fp32, (rows, columns), with one read of a half-precision `right` and no copy of it.

    `left`, in fp32, is the sum of three half-precision parts up to fp32's own rounding, and products of halves are
    exact in fp32.
    """
    scale = _SCALES[right.dtype]
    rest, parts = left if scale == 1 else left * scale, []
    for _ in range(3):
        parts.append(rest.to(right.dtype))
        rest = rest - parts[-1]
    products = torch.mm(torch.cat(parts), right, out_dtype=torch.float32)  # (3 * rows, columns)
    total = products.unflatten(0, (3, -1)).sum(0)
    return total if scale == 1 else total.div_(scale)


def nearest_in_one_read(latent: Tensor, table: Tensor, terms: Tensor) -> Tensor:
    """Cosine's nearest rows of a half-precision table, as `projection.nearest_rows`."""
    assert set(projection.SIMILARITIES) >= {"cosine"}
    return (split_product(latent.float(), table.T) * terms).argmax(-1)
