"""What follows a context: prompts behind an example, or examples behind a prompt, as one tree that a pass can run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from peft_interp.scoring.context_cache import Context
from peft_interp.scoring.scored_rows import IGNORED, ScoredRow
from peft_interp.scoring.token_tree import TokenTree, visible


@dataclass(frozen=True)
class Branches:
    """What follows every context. A negative number -1 - j stands for the context's own entry j.

    Attributes:
        sequences: sorted; each begins with -1, the context's last token.
        answers: per sequence, places in it whose output predicts, and the token that is asked for.
        order: where each sequence stood before sorting.
    """

    sequences: list[tuple[int, ...]]
    answers: list[list[tuple[int, int]]]
    order: list[int]


def branches(sequences: Sequence[tuple[int, ...]], answers: Sequence[list[tuple[int, int]]]) -> Branches:
    """Sort, so that neighbours share most."""
    order = sorted(range(len(sequences)), key=lambda i: sequences[i])
    return Branches([sequences[i] for i in order], [answers[i] for i in order], order)


def prompt_branches(prompts: Sequence[tuple[int, ...]], tail: int) -> Branches:
    """Prompts, each with the context's own `tail` tokens and `tail + 1` answers behind it."""
    own = tuple(-2 - k for k in range(tail))
    answers = [[(len(prompt) + k, -1 - k) for k in range(tail + 1)] for prompt in prompts]
    return branches([(-1, *prompt, *own) for prompt in prompts], answers)


def text_branches(rows: Sequence[ScoredRow], whole: bool) -> Branches:
    """Texts up to the token in front of their last answer (of their first, unless `whole`)."""
    answers = []
    for row in rows:
        labelled = [(index, label) for index, label in enumerate(row.labels) if label != IGNORED]
        answers.append(labelled if whole else labelled[:1])
    pairs = zip(rows, answers, strict=True)
    return branches([(-1, *row.ids[: found[-1][0]]) for row, found in pairs], answers)


def own_values(values: Tensor, own: Tensor) -> Tensor:
    """(columns,) with negative stand-ins and (contexts, entries) -> (contexts, columns)."""
    values = values.unsqueeze(0).expand(len(own), -1)
    return torch.where(values < 0, own.gather(1, (-1 - values).clamp_min(0)), values)


def tree_inputs(context: Context, tree: TokenTree, own: Tensor, added: torch.dtype | None = None) -> dict[str, Any]:
    """A forward pass of `tree` behind every sequence of `context`.

    Args:
        context: what was run.
        tree: what follows.
        own: (contexts, entries) tokens for the tree's stand-ins.
        added: the model's dtype, for attention that adds its mask to the scores; None where it takes a bool mask.

    Returns:
        Keywords for the model; its output is (contexts, nodes, ...).
    """
    device, lengths, width = own.device, context.lengths, int(context.lengths.max())
    distinct = lengths[:1] if bool((lengths == width).all()) else lengths  # without padding, one mask for all
    below = visible(tree).to(device).expand(len(distinct), -1, -1)  # (1 or contexts, nodes, nodes)
    real = torch.arange(width, device=device) < distinct.unsqueeze(1)  # (1 or contexts, width)
    seen = torch.cat((real.unsqueeze(1).expand(-1, below.shape[1], -1), below), dim=2).unsqueeze(1)
    if added is not None:
        seen = torch.zeros(seen.shape, dtype=added, device=device).masked_fill_(~seen, torch.finfo(added).min)
    cache = context.cache()
    return {
        "input_ids": own_values(tree.ids.to(device), own),
        "position_ids": lengths.unsqueeze(1) + tree.depths.to(device),
        "attention_mask": seen,  # (1 or contexts, 1, nodes, width + nodes)
        "past_key_values": cache,
        "use_cache": cache is not None,
    }
