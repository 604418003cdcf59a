"""Drawing tokens from Q-values, with noise that depends on nothing but a prompt's number; and a step's examples.

Every prompt of a run has its own stream of random numbers, named by (seed, step, index). So a resumed run draws what
the uninterrupted one would have drawn, and two processes draw what one with twice the prompts draws; there is no state.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def prompt_noise(seed: int, step: int, count: int, length: int) -> Tensor:
    """(count, length) float64 in [0, 1): the random numbers of the prompts 0 to count - 1 of a step."""
    rows = [np.random.default_rng((seed, step, index)).random(length) for index in range(count)]
    return torch.from_numpy(np.stack(rows))


def example_places(total: int, size: int | None, seed: int, step: int) -> tuple[int, ...] | None:
    """Which examples a step uses: parts of a permutation that is drawn anew in every epoch; None for all of them."""
    if size is None or size >= total:
        return None
    parts = math.ceil(total / size)
    epoch, part = divmod(step, parts)
    order = np.random.default_rng((seed, epoch)).permutation(total).tolist()
    return tuple(sorted(order[part * size : (part + 1) * size]))


def filtered_probs(q: Tensor, top_k: int | None = None, top_p: float = 1.0, temperature: float = 1.0) -> Tensor:
    """The distribution a token is drawn from.

    Args:
        q: (batch, actions) Q-values, -inf for actions that may not be taken.
        top_k: only this many best actions; None or 0 for all.
        top_p: only the smallest set of best actions with at least this much probability, in (0, 1].
        temperature: > 0; below 1 sharpens.

    Returns:
        (batch, actions), rows sum to one; float64.
    """
    scores = q.double() / temperature
    if top_k and top_k < scores.shape[-1]:
        least = scores.topk(top_k, dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    probs = scores.softmax(-1)
    if top_p < 1.0:
        ordered, order = probs.sort(dim=-1, descending=True)
        outside = ordered.cumsum(-1) - ordered >= top_p  # the mass before an action already suffices
        probs = probs.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), 0.0)
        probs = probs / probs.sum(-1, keepdim=True)
    return probs


def draw(probs: Tensor, noise: Tensor) -> Tensor:
    """(batch,) actions: the inverse of the cumulative distribution `probs` (batch, actions) at `noise` (batch,)."""
    cumulative = probs.double().cumsum(-1)
    places = noise.to(cumulative).unsqueeze(-1) * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, places, right=True).squeeze(-1)
    possible = probs > 0
    last = possible.shape[-1] - 1 - possible.flip(-1).int().argmax(-1)  # rounding must not draw what cannot be drawn
    return torch.minimum(drawn, last)
