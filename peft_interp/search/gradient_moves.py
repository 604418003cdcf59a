"""Swaps of one token that the task's gradient asks for, among tokens that are likely in that place."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from peft_interp.scoring.scored_rows import Position, ScoredRow, compose


def swap_gains(
    model: Any, ids: Sequence[int], rows: Sequence[ScoredRow], position: Position, causal: bool = True
) -> Tensor:
    """How much the task's loss would fall if one token were another, to first order (HotFlip, arXiv 1712.06751).

    Args:
        model: causal or masked LM in evaluation mode; its weights get no gradient.
        ids: (L,) the prompt.
        rows: labelled examples.
        position: where the prompt stands.
        causal: as `compose`.

    Returns:
        (L, vocabulary) fp32 on the CPU, nats; higher is better, 0 for the token that is there.
    """
    embeddings = model.get_input_embeddings()
    device = embeddings.weight.device
    composed = [compose(row, ids, position, causal, whole=True) for row in rows]
    width = max(len(row_ids) for row_ids, _ in composed)
    tokens = torch.tensor([[*row_ids, *[0] * (width - len(row_ids))] for row_ids, _ in composed], device=device)
    mask = torch.tensor([[1] * len(row_ids) + [0] * (width - len(row_ids)) for row_ids, _ in composed], device=device)
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        prompt = embeddings(torch.tensor(list(ids), device=device)).detach().requires_grad_(True)  # (L, dim)
        inputs = embeddings(tokens).detach()
        places = torch.tensor([len(row.before(position)) for row in rows], device=device)
        columns = places.unsqueeze(1) + torch.arange(len(ids), device=device)  # (rows, L)
        which = torch.arange(len(rows), device=device).unsqueeze(1).expand_as(columns)
        inputs = inputs.index_put((which, columns), prompt.unsqueeze(0).expand(len(rows), -1, -1))
        logits = model(inputs_embeds=inputs, attention_mask=mask).logits
        asked = [(i, place, label) for i, (_, found) in enumerate(composed) for place, label in found]
        owner, at, target = torch.tensor(asked, device=device).unbind(1)
        loss = nn.functional.cross_entropy(logits[owner, at].float(), target)
        (gradient,) = torch.autograd.grad(loss, prompt)  # (L, dim)
    with torch.no_grad():
        every = embeddings(torch.arange(embeddings.weight.shape[0], device=device))  # (vocabulary, dim)
        slope = gradient.float() @ every.float().T  # (L, vocabulary)
        return (slope.gather(1, torch.tensor(list(ids), device=device).unsqueeze(1)) - slope).cpu()


def gradient_swap(
    ids: Sequence[int], gains: Tensor, logits: Tensor, allowed: Tensor, rng: Random, fluent: int = 128, best: int = 8
) -> list[int]:
    """With the token of one place replaced: one of the `best` by gain among the `fluent` likeliest ones there.

    Args:
        ids: (L,) the prompt.
        gains: (L, vocabulary) of `swap_gains`.
        logits: (L, vocabulary): row i predicts place i from what is in front of it.
        allowed: (vocabulary,) bool.
        rng: of the draw.
        fluent: how many tokens count as likely.
        best: among how many is drawn.
    """
    place = rng.randrange(len(ids))
    width = min(logits.shape[-1], gains.shape[-1], len(allowed))
    scores = logits[place, :width].masked_fill(~allowed[:width], -torch.inf)
    scores[ids[place]] = -torch.inf
    likely = scores.topk(min(fluent, int(scores.isfinite().sum()))).indices
    top = likely[gains[place][likely].topk(min(best, len(likely))).indices]
    return [*ids[:place], int(rng.choice(top.tolist())), *ids[place + 1 :]]
