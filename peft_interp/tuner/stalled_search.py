"""Notices a search that stands still: a learning rate too small to move any token, or a prompt that nothing changes."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from peft_interp.tuner.projection import products

FIRST_MOVE = 30  # optimizer steps within which some token changes at any learning rate that will do


class StallWatch:
    """Counts optimizer steps in which no token of the prompt changed.

    Args:
        patience: how many of them in a row are too many; until the first change no more than `FIRST_MOVE` are.
    """

    def __init__(self, patience: int) -> None:
        self.patience, self.unchanged, self._warned = patience, 0, False

    def see(self, changed: bool, steps: int, beside: Sequence[str] = ()) -> None:
        """Count a step, and warn if it is one too many.

        Args:
            changed: whether a token changed.
            steps: optimizer steps since the prompt was made.
            beside: names of the modules that are trained with the prompt.
        """
        self.unchanged = 0 if changed else self.unchanged + 1
        never = self.unchanged == steps
        if self._warned or self.unchanged < (min(FIRST_MOVE, self.patience) if never else self.patience):
            return
        self._warned = True
        warnings.warn(
            f"the prompt search is stuck: no token has changed for {self.unchanged} optimizer steps"
            f"{' since the start' if never else ''}. Raise the learning rate (PEZ uses 0.1 to 0.3; Trainer's default "
            "of 5e-5 moves nothing), start elsewhere, or lower `perplexity_weight`."
            f"{_only_the_head(beside) if never and beside else ''}",
            stacklevel=2,
        )

    def first_step(self, least: float, rate: float) -> None:
        """Warn, at the first optimizer step, of a learning rate that will not change a token in the time allowed.

        A step without a gradient says nothing of the rate (in reinforcement learning: a group whose rewards are equal);
        if it stays so, `see` warns.

        Args:
            least: steps like the first one that the first token would need, all in one direction; infinite where the
                first one moved nothing.
            rate: the learning rate at its largest.
        """
        if self._warned or math.isinf(least) or not least > self.patience:  # not a number after a broken loss
            return
        self._warned = True
        warnings.warn(
            f"the learning rate of {rate:g} cannot move the prompt: at least {least:,.0f} optimizer steps like the "
            "first, all in one direction, would change one token. Use 0.1 to 0.3, on every model; Trainer's default of "
            "5e-5 and the rates of stock prompt tuning are for vectors that need not reach another token.",
            stacklevel=2,
        )


def _only_the_head(beside: Sequence[str]) -> str:
    names = ", ".join(f"`{name}`" for name in dict.fromkeys(beside))
    return (
        f" What has been learned so far is in the modules trained beside it ({names}), and the prompt is still the "
        "random one it began with: it explains nothing. Give the prompt a learning rate of its own, in an optimizer "
        "group."
    )


@torch.no_grad()
def least_steps(
    place: Tensor, step: Tensor, ids: Tensor, table: Tensor, metric: str, terms: Tensor | None, blocked: Tensor
) -> float:
    """Steps of this length that the first token to change would need at least, straight towards its neighbour.

    A vector x is nearer to row j than to its own row i where the difference of two scores, linear in x, turns over; the
    distance to that plane is the difference now over the difference of the two rows.

    Args:
        place: (prompt, dim) the latent, in the table's units.
        step: (prompt, dim) how far the optimizer moved it.
        ids: (prompt,) its nearest rows.
        table: (vocabulary, dim).
        metric: "cosine", "dot" or "euclidean".
        terms: what `row_terms(table, metric)` returned.
        blocked: (vocabulary,) bool, rows that never win.

    Returns:
        Steps, >= 0; infinite where nothing moved.
    """
    own = table[ids].float()  # (prompt, dim)
    scores, between = products(place, table), products(own, table)  # (prompt, vocabulary)
    if metric == "cosine" and terms is not None:
        scores, between = scores * terms, between * terms * terms[ids].unsqueeze(1)
        squares = torch.ones_like(terms)
    else:
        norms = torch.linalg.vector_norm(table, dim=-1, dtype=torch.float32)
        squares = norms.square()
        scores = scores - 0.5 * squares if metric == "euclidean" else scores
    ahead = scores.gather(1, ids.unsqueeze(1)) - scores
    apart = (squares[ids].unsqueeze(1) + squares - 2 * between).clamp_min(0).sqrt()
    ahead = (ahead.clamp_min(0) / apart.clamp_min(1e-12)).masked_fill(blocked, torch.inf)
    ahead.scatter_(1, ids.unsqueeze(1), torch.inf)
    lengths = step.norm(dim=-1)  # (prompt,)
    return float((ahead.amin(dim=1) / lengths.clamp_min(1e-30)).min()) if bool(lengths.any()) else math.inf


def after_first_step(watched: Any) -> None:
    """Have `watched.saw_first_step(rate, largest)` called once, after the first step that had a rate for its `latent`.

    Args:
        watched: a module with a parameter `latent`; it is told the learning rate of that step, and the largest one that
            a scheduler will give. Not told of SGD, whose steps are as long as the gradient, so that the first says
            nothing of those to come.
    """
    known = weakref.ref(watched)

    def look(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        module = known()
        if module is None or module not in _watching:
            return
        for group in optimizer.param_groups:
            rate = float(group["lr"])
            if rate > 0 and any(parameter is module.latent for parameter in group["params"]):
                if not isinstance(optimizer, torch.optim.SGD):
                    module.saw_first_step(rate, max(rate, float(group.get("initial_lr", rate))))
                module.first_step_seen = True

    _watching[watched] = weakref.finalize(watched, register_optimizer_step_post_hook(look).remove)


def stop_watching(watched: Any) -> None:
    """Take the hook of `after_first_step` away again; not from inside a step, which goes through all hooks."""
    if watched in _watching:
        _watching.pop(watched)()


_watching: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
