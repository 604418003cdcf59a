"""Nearest allowed rows of an embedding table, and the gradient that passes through the choice.

PEZ (arXiv 2302.03668, algorithm 1) optimises continuous vectors (the *latent*) but runs the model on their nearest
vocabulary rows (*hard*). Two differences from its reference code: the table's norms are computed once instead of in
every step, and the rows that reach the model are the table's own, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

SIMILARITIES = ("cosine", "dot", "euclidean")
_CPU_ROWS = 4096  # of a slice on a CPU, which stays in the cache
_CHUNK_BYTES = 64 * 2**20  # memory for one fp32 copy of a slice of a half-precision table


def row_terms(table: Tensor, metric: str) -> Tensor | None:
    """The part of the similarity that depends on the table alone; compute it once while the table is frozen.

    Args:
        table: embedding table, (vocabulary, dim).
        metric: one of `SIMILARITIES`.

    Returns:
        (vocabulary,) in fp32: inverse norms for cosine (0 for zero-norm rows), squared norms for euclidean; None for
        dot, which needs none.

    Raises:
        ValueError: for an unknown metric.
    """
    if metric not in SIMILARITIES:
        raise ValueError(f"`metric={metric!r}` is unknown; use one of {', '.join(SIMILARITIES)}.")
    if metric == "dot":
        return None
    # a reduction without an intermediate of the table's size
    norms = torch.cat([torch.linalg.vector_norm(rows, dim=-1) for rows in _fp32_chunks(table.detach())])
    squared = norms.square()  # (vocabulary,)
    if metric == "euclidean":
        return squared
    return torch.where(squared > 0, squared.rsqrt(), torch.zeros_like(squared))


def similarity(latent: Tensor, table: Tensor, metric: str, terms: Tensor | None) -> Tensor:
    """Similarity of each latent vector to each row, higher is nearer; differentiable in `latent`.

    Args:
        latent: (prompt, dim).
        table: (vocabulary, dim).
        metric: one of `SIMILARITIES`.
        terms: what `row_terms(table, metric)` returned.

    Returns:
        (prompt, vocabulary) in fp32: the cosine in [-1, 1], the dot product, or minus the squared euclidean distance.
    """
    latent = latent.float().to(table.device)
    scores = products(latent, table)
    if metric == "cosine":
        assert terms is not None
        return scores * terms / latent.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    if metric == "euclidean":
        assert terms is not None
        return 2 * scores - terms - latent.square().sum(-1, keepdim=True)
    return scores


def check_finite(finite: bool) -> None:
    """Refuse a latent that is not finite, or whose norm is not.

    Raises:
        FloatingPointError: `finite` is false.
    """
    if not finite:
        raise FloatingPointError(
            "the prompt's latent vectors contain NaN or infinity (or grew until their norm overflowed), so no nearest "
            "token exists; lower the learning rate, clip gradients (`max_grad_norm=1.0`) or train in bf16 instead of "
            "fp16."
        )


@torch.no_grad()
def equal_rows(table: Tensor, blocked: Tensor) -> Tensor | None:
    """The lowest id with the same row, for every token; compute it once while the table is frozen.

    Products with equal rows differ in their last bits, so which of them comes out nearest is chance.

    Args:
        table: (vocabulary, dim).
        blocked: (vocabulary,) bool, ids that never win.

    Returns:
        (vocabulary,) int64, or None where no two rows that can win are equal.
    """
    ids = (~blocked).nonzero().squeeze(1)
    width = 8 // table.element_size()
    if table.shape[1] >= width:  # equal rows begin alike, and few others do
        beginnings = table[:, :width].contiguous().view(torch.int64).squeeze(1)[ids]
        _, group, counts = beginnings.unique(return_inverse=True, return_counts=True)
        ids = ids[counts[group] > 1]
    if not len(ids):
        return None
    _, group = table[ids].unique(dim=0, return_inverse=True)
    lowest = ids.new_full((int(group.max()) + 1,), len(table)).scatter_reduce_(0, group, ids, "amin")
    same = torch.arange(len(table), device=table.device)
    same[ids] = lowest[group]
    return same if bool((lowest[group] != ids).any()) else None


@torch.no_grad()
def nearest_rows(
    latent: Tensor,
    table: Tensor,
    metric: str,
    terms: Tensor | None,
    blocked: Tensor | None = None,
    equal: Tensor | None = None,
) -> Tensor:
    """Ids of the nearest allowed rows: P_i = argmin_y D(f(y), latent_i) (arXiv 2504.02144, unembedding).

    Args:
        latent: (prompt, dim).
        table: (vocabulary, dim); never copied as a whole.
        metric: one of `SIMILARITIES`.
        terms: what `row_terms(table, metric)` returned.
        blocked: (vocabulary,) bool, rows that never win; None for none.
        equal: what `equal_rows(table, blocked)` returned.

    Returns:
        (prompt,) int64. Among equal rows the lowest id wins. Of a latent that is not finite the ids mean nothing; see
        `check_finite`.
    """
    if table.device.type == "cpu":
        ids = _nearest_in_slices(latent.float().T.contiguous(), table, metric, terms, blocked)
    else:
        scores = products(latent, table)  # (prompt, vocabulary)
        ids = _comparable(scores, metric, terms, blocked).argmax(dim=-1)
    return (ids if equal is None else equal[ids]).to(latent.device)


def _comparable(products: Tensor, metric: str, terms: Tensor | None, blocked: Tensor | None) -> Tensor:
    """Products with the table, (..., vocabulary), changed in place to what orders its rows."""
    if metric == "cosine" and terms is not None:
        products.mul_(terms)  # the latent's own norm changes no order
    if metric == "euclidean" and terms is not None:
        products.mul_(2).sub_(terms)
    return products if blocked is None else products.masked_fill_(blocked, -torch.inf)


def _nearest_in_slices(
    columns: Tensor, table: Tensor, metric: str, terms: Tensor | None, blocked: Tensor | None
) -> Tensor:
    """`nearest_rows` on a CPU, latent as (dim, prompt): a slice's scores are used up while they are in the cache."""
    best: list[tuple[Tensor, Tensor]] = []
    first = 0
    with torch.autocast("cpu", enabled=False):
        for rows in _fp32_chunks(table):
            part = slice(first, first + len(rows))
            given = (None if values is None else values[part] for values in (terms, blocked))
            scores, ids = _comparable((rows @ columns).T, metric, *given).max(dim=-1)
            best.append((scores, ids + first))
            first += len(rows)
    scores, ids = (torch.stack(values) for values in zip(*best, strict=True))  # (slices, prompt)
    return ids.gather(0, scores.argmax(0, keepdim=True))[0]


def products(latent: Tensor, table: Tensor) -> Tensor:
    """(prompt, vocabulary) `latent @ table.T` in fp32, whatever autocast says, with gradient to `latent`."""
    found: Tensor = _Products.apply(latent.float().to(table.device), table.detach())
    return found


class _Products(torch.autograd.Function):
    """`latent @ table.T` in fp32, without a copy of the table kept for the backward pass.

    Always in fp32: inside autocast the product would be rounded to 8 bits and choose other tokens.
    """

    @staticmethod
    def forward(ctx: Any, latent: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(table)
        with torch.autocast(table.device.type, enabled=False):
            products = [latent @ rows.T for rows in _fp32_chunks(table)]
        return products[0] if len(products) == 1 else torch.cat(products, dim=-1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (table,) = ctx.saved_tensors
        total, first = grads[0].new_zeros(grads[0].shape[0], table.shape[1]), 0
        with torch.autocast(table.device.type, enabled=False):
            for rows in _fp32_chunks(table):
                total += grads[0][:, first : first + len(rows)] @ rows
                first += len(rows)
        return total, None


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, latent: Tensor, rows: Tensor) -> Tensor:
        ctx.like = (latent.dtype, latent.device)
        return rows.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        dtype, device = ctx.like
        return grads[0].to(device=device, dtype=dtype), None


def straight_through(latent: Tensor, rows: Tensor) -> Tensor:
    """`rows` in the forward pass, the identity to `latent` in the backward pass.

    `rows + latent - latent.detach()` would differ from the rows by rounding; this returns them bit for bit.

    Args:
        latent: (prompt, dim), receives the gradient.
        rows: (prompt, dim), any float dtype.

    Returns:
        (prompt, dim) in the dtype of `rows`.
    """
    return _StraightThrough.apply(latent, rows)


def _fp32_chunks(table: Tensor) -> Iterable[Tensor]:
    """The table as fp32 slices: its own rows when it is fp32 already, otherwise one bounded copy at a time."""
    rows, whole = max(1, _CHUNK_BYTES // (4 * table.shape[1])), table.dtype == torch.float32
    if whole:
        rows = _CPU_ROWS if table.device.type == "cpu" else len(table)
    parts = (
        table[first : first + rows] for first in range(0, len(table), rows)
    )  # `split` would be compiled as a graph
    return parts if whole else (part.float() for part in parts)
