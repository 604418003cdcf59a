"""From answers back to tokens by gradient: how the divergence falls with a swap, and a relaxation of the tokens.

Both differentiate KL(prompt || text) at the vectors of the text, so they need nothing of the prompt but its answers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from peft_interp.explain.target import Target
from peft_interp.inference.head import answer_logits_at
from peft_interp.inference.models import input_embeddings
from peft_interp.tuner.projection import row_terms, similarity

_TABLE_ROWS = 8192  # of the embedding table that are in fp32 at a time
_ENTROPY = 0.3  # last weight of the entropy, in units of what there is to explain
_LEAST_SCALE = 0.01  # nats
_SHARPNESS = 4.0  # scores for a cosine of 1


def divergence(target: Target, vectors: Tensor) -> Tensor:
    """KL(prompt || vectors) in nats, mean over answers, with a gradient to `vectors`.

    Args:
        target: rows that are run in one pass.
        vectors: (length, dim) as the embedding module makes them.
    """
    base = target.setup.text.base
    length = len(vectors)
    blank = [0] * length
    tokens, mask, places = target.padded([(blank, number) for number in range(len(target.rows))])
    starts = torch.tensor([len(row.before) for row in target.rows], device=tokens.device)
    columns = starts.unsqueeze(1) + torch.arange(length, device=tokens.device)  # (rows, length)
    which = torch.arange(len(target.rows), device=tokens.device).unsqueeze(1).expand_as(columns)
    inputs = input_embeddings(base)(tokens).detach()
    inputs = inputs.index_put((which, columns), vectors.to(inputs.dtype).expand(len(target.rows), -1, -1))
    log_probs = answer_logits_at(base, places, None, False, inputs_embeds=inputs, attention_mask=mask).log_softmax(-1)
    return (target.prompt.exp() * (target.prompt - log_probs)).sum(-1).mean()


def swap_gains(target: Target, ids: Sequence[int]) -> Tensor:
    """How far the divergence would fall if one token were another, to first order (HotFlip, arXiv 1712.06751).

    Returns:
        (length, vocabulary) fp32 on the CPU, nats; higher is better, 0 for the token that is there.
    """
    module = input_embeddings(target.setup.text.base)
    known = torch.tensor(list(ids), device=module.weight.device)
    with torch.enable_grad():
        vectors = module(known).detach().float().requires_grad_(True)
        (gradient,) = torch.autograd.grad(divergence(target, vectors), vectors)
    size, found = int(module.weight.shape[0]), []
    for first in range(0, size, _TABLE_ROWS):
        every = module(torch.arange(first, min(first + _TABLE_ROWS, size), device=known.device))  # (rows, dim)
        found.append(gradient @ every.float().T)
    slope = torch.cat(found, 1)
    return (slope.gather(1, known.unsqueeze(1)) - slope).cpu()


def invert(target: Target, start: Tensor, steps: int, learning_rate: float = 0.3) -> list[tuple[int, ...]]:
    """A text whose answers are the prompt's, by a continuous relaxation of its tokens.

    Every place holds a mixture of the table's rows, softmax(scores) @ table. The divergence and, with a weight that
    grows from 0, the mixtures' entropy are minimised by Adam, so that mixtures become tokens.

    Args:
        target: rows that are run in one pass.
        start: (length, vocabulary) first scores; -inf for tokens that are never chosen.
        steps: of Adam.
        learning_rate: Adam's, in units of the scores.

    Returns:
        The likeliest ids at every quarter of the way, the last ones first.
    """
    module = input_embeddings(target.setup.text.base)
    allowed = start.isfinite().any(0).nonzero().flatten()
    rows = module(allowed.to(module.weight.device)).detach().float()  # (allowed, dim)
    scores = start[:, allowed].to(rows.device).clone().requires_grad_(True)
    optimizer = torch.optim.Adam([scores], lr=learning_rate)
    scale, found = max(target.kl_of_nothing, _LEAST_SCALE), []
    for step in range(1, steps + 1):
        with torch.enable_grad():
            mixture = scores.softmax(-1)
            entropy = -(mixture * mixture.clamp_min(1e-12).log()).sum(-1).mean()
            loss = divergence(target, mixture @ rows) + _ENTROPY * scale * step / steps * entropy
            (scores.grad,) = torch.autograd.grad(loss, scores)  # the model's weights get none
        optimizer.step()
        if step % max(1, steps // 4) == 0:
            found.append(tuple(allowed[scores.detach().argmax(-1).cpu()].tolist()))
    return list(dict.fromkeys(reversed(found)))


def start_scores(
    shape: tuple[int, int], allowed: Tensor, seed: int, vectors: Tensor | None = None, table: Tensor | None = None
) -> Tensor:
    """(length, vocabulary) scores to begin with: noise, or the cosine to given vectors, sharpened.

    Args:
        shape: length and vocabulary.
        allowed: (vocabulary,) bool on the CPU.
        seed: of the noise.
        vectors: (length, dim) what to begin near to; None for nothing.
        table: (vocabulary, dim), with `vectors`.
    """
    generator = torch.Generator().manual_seed(seed)
    scores = 0.01 * torch.randn(shape, generator=generator)
    if vectors is not None and table is not None:
        scores += _SHARPNESS * similarity(vectors, table, "cosine", row_terms(table, "cosine")).cpu()
    return scores.masked_fill(~allowed, -torch.inf)
