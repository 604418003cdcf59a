"""Proposals from the language model itself, which are readable because it finds them likely."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from peft_interp.inference.batching import Batches, drawing_batches
from peft_interp.inference.eval_mode import eval_mode
from peft_interp.inference.models import generate_of

_ENDINGS = (".", "?", "!", ":")


def sentence_ends(texts: Sequence[str]) -> list[int]:
    """Ids of tokens after which a sentence is over, given the text of every token."""
    return [i for i, text in enumerate(texts) if text.rstrip().endswith(_ENDINGS)]


def continue_from(
    model: PreTrainedModel,
    prefixes: Sequence[Sequence[int]],
    most: int,
    forbidden: Sequence[int],
    ends: Sequence[int],
    seed: int,
    temperature: float = 1.0,
    top_p: float = 0.95,
    batches: Batches | None = None,
) -> list[list[int]]:
    """Go on from the beginnings of prompts until a sentence is over or a length is reached.

    Args:
        model: a causal LM.
        prefixes: ids to go on from, with BOS where the model wants one; none of them empty.
        most: new tokens at most.
        forbidden: ids that are never chosen.
        ends: ids that end a prompt.
        seed: of the draw; the caller's random state is not touched.
        temperature: of sampling, > 0.
        top_p: nucleus, in (0, 1].
        batches: remembers how much fits; where memory runs out, parts are drawn after each other, and another draw is
            the price. None: all at once first.

    Returns:
        For each prefix the new ids, the ending included.
    """
    if not prefixes:
        return []
    pad, stop = forbidden[0] if len(forbidden) else 0, set(ends)
    drawn: list[list[int]] = [[]] * len(prefixes)
    settings = GenerationConfig(
        do_sample=True,
        temperature=temperature,
        top_p=top_p,
        top_k=0,
        max_new_tokens=most,
        pad_token_id=pad,
        eos_token_id=list(ends) or None,
        suppress_tokens=list(forbidden) or None,
    )

    def cost(rows: range, _: range) -> float:
        return len(rows) * (max(len(prefixes[i]) for i in rows) + most)

    def work(rows: range, _: range) -> None:
        found = _generated(model, [prefixes[i] for i in rows], pad, settings, seed + rows.start)
        drawn[rows.start : rows.stop] = [_until(row, stop, pad) for row in found]

    (batches or drawing_batches()).run(work, cost, range(len(prefixes)), range(1))
    return drawn


def _generated(
    model: PreTrainedModel, prefixes: Sequence[Sequence[int]], pad: int, settings: GenerationConfig, seed: int
) -> list[list[int]]:
    """What `generate` puts after the prefixes, padded."""
    longest = max(map(len, prefixes))
    rows = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prefixes], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prefixes], device=model.device)
    devices = [model.device] if model.device.type == "cuda" else []
    with eval_mode(model), torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        new = generate_of(model)(rows, attention_mask=mask, generation_config=settings)[:, longest:]
        found: list[list[int]] = new.tolist()
    return found


def _until(row: list[int], stop: set[int], pad: int) -> list[int]:
    for place, token in enumerate(row):
        if token in stop:
            return row[: place + 1]
    return [token for token in row if token != pad]


def drawn_token(logits: Tensor, allowed: Tensor, rng: Random, top_k: int = 64) -> int:
    """One of the `top_k` likeliest allowed tokens, drawn by probability.

    Args:
        logits: (vocabulary,).
        allowed: (vocabulary,) bool.
        rng: of the draw.
        top_k: how many may be drawn.
    """
    scores = logits.double().masked_fill(~allowed[: len(logits)], -torch.inf)
    top = scores.topk(min(top_k, int(allowed.sum())))
    return int(rng.choices(top.indices.tolist(), top.values.softmax(-1).tolist())[0])


def rewritten(ids: Sequence[int], logits: Tensor, allowed: Tensor, rng: Random, insert: bool) -> list[int]:
    """With one token that is likely after what is in front of it, instead of another or between two.

    Args:
        ids: (L,) the prompt.
        logits: (L, vocabulary): row i predicts place i.
        allowed: (vocabulary,) bool.
        rng: of the draw.
        insert: put it between two tokens.
    """
    place = rng.randrange(len(ids))
    token = drawn_token(logits[place], allowed, rng)
    return [*ids[:place], token, *ids[place + (not insert) :]]
