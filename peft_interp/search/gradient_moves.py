"""Swaps of one token that the task's gradient asks for, among tokens that are likely in that place."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from peft_interp.inference.batching import Batches, gradient_batches, logits_tokens, padded_rows
from peft_interp.inference.head import answer_logits_at
from peft_interp.inference.models import input_embeddings
from peft_interp.text.rows import Answers, Row

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TABLE_ROWS = 8192  # of the embedding table that are in fp32 at a time


def swap_gains(
    model: PreTrainedModel,
    ids: Sequence[int],
    rows: Sequence[Row],
    causal: bool = True,
    batches: Batches | None = None,
) -> Tensor:
    """How much the task's loss would fall if one token were another, to first order (HotFlip, arXiv 1712.06751).

    Args:
        model: causal or masked LM in evaluation mode; its weights get no gradient.
        ids: (L,) the prompt.
        rows: labelled examples, which say where the prompt stands.
        causal: as `Row.compose`.
        batches: cuts passes that do not fit; None: by the memory that is free now.

    Returns:
        (L, vocabulary) fp32 on the CPU, nats; higher is better, 0 for the token that is there.
    """
    embeddings = input_embeddings(model)
    device = embeddings.weight.device
    known = torch.tensor(list(ids), device=device)
    composed = [row.compose(ids, causal, whole=True) for row in rows]
    places = [len(row.before) for row in rows]
    answers = sum(len(found) for _, found in composed)
    gradient = torch.zeros(len(ids), embeddings(known[:1]).shape[-1], device=device)  # (L, dim)
    answer_cost = logits_tokens(model)

    def cost(block: range, _: range) -> float:
        longest = max(len(composed[i][0]) for i in block)
        return len(block) * longest + answer_cost * sum(len(composed[i][1]) for i in block)

    def work(block: range, _: range) -> None:
        part = [composed[i] for i in block]
        share = sum(len(found) for _, found in part) / answers  # the loss is a mean over all answers
        slope = _slope(model, known, part, [places[i] for i in block])
        gradient.add_(slope.float(), alpha=share)

    (batches or gradient_batches(model)).run(work, cost, range(len(rows)), range(1))
    return _gains(embeddings, known, gradient).cpu()


def _slope(
    model: PreTrainedModel, ids: Tensor, composed: Sequence[tuple[tuple[int, ...], Answers]], places: Sequence[int]
) -> Tensor:
    """(L, dim) gradient of the mean loss of some rows at the vectors of the prompt `ids`, which stand at `places`."""
    embeddings, device = input_embeddings(model), ids.device
    tokens, mask = padded_rows([row_ids for row_ids, _ in composed], 0, device)
    asked = [(i, place, label) for i, (_, found) in enumerate(composed) for place, label in found]
    owner, at, target = torch.tensor(asked, device=device).unbind(1)
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        prompt = embeddings(ids).detach().requires_grad_(True)  # (L, dim)
        inputs = embeddings(tokens).detach()
        columns = torch.tensor(places, device=device).unsqueeze(1) + torch.arange(len(ids), device=device)  # (rows, L)
        which = torch.arange(len(composed), device=device).unsqueeze(1).expand_as(columns)
        inputs = inputs.index_put((which, columns), prompt.unsqueeze(0).expand(len(composed), -1, -1))
        logits = answer_logits_at(
            model, owner * tokens.shape[1] + at, None, False, inputs_embeds=inputs, attention_mask=mask
        )
        loss = nn.functional.cross_entropy(logits, target.to(logits.device))
        (gradient,) = torch.autograd.grad(loss, prompt)
    return gradient


@torch.no_grad()
def _gains(embeddings: nn.Embedding, ids: Tensor, gradient: Tensor) -> Tensor:
    """(L, vocabulary) fp32: how far the loss falls along `gradient`, (L, dim), from the prompt's vectors to others."""
    size, found = int(embeddings.weight.shape[0]), []
    for start in range(0, size, _TABLE_ROWS):
        every = embeddings(torch.arange(start, min(start + _TABLE_ROWS, size), device=ids.device))  # (rows, dim)
        found.append(gradient @ every.float().T)
    slope = torch.cat(found, 1)
    return slope.gather(1, ids.unsqueeze(1)) - slope


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
