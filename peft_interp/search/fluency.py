"""What a prompt's NLL means: between the fluency of human-written prompts and that of random tokens, and the target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from peft_interp.metrics.references import human_perplexity, reference_levels

FLOOR_PERCENT = 10


@dataclass(frozen=True)
class FluencyScale:
    """Levels of NLL under the judge, nats per token.

    Attributes:
        floor: below this more fluent is not better: only a tenth of human-written prompts are below, and what is far
            below is repetition and boilerplate. A target that is lower lowers it.
        usual: the median of human-written prompts.
        random: the median of random tokens.
        target: the most a chosen prompt may have; None for no target.
        own_judge: the judge is not the model that proposes.
    """

    floor: float
    usual: float
    random: float
    target: float | None
    own_judge: bool = False

    def value(self, nlls: Sequence[float | None]) -> Tensor:
        """(n,) float64 fluency, higher is better: the negative NLL, cut at the floor; unknown counts as random."""
        known = [self.random if nll is None else nll for nll in nlls]
        return -torch.tensor(known, dtype=torch.float64).clamp_min(self.floor)

    def within(self, nll: float | None) -> bool:
        """Whether an NLL is within the target; within the median human-written prompt's where there is none."""
        return nll is not None and nll <= (self.usual if self.target is None else self.target)


def fluency_scale(
    judge: Any, tokenizer: Any, perplexity: float | None, percentile: float | None, own_judge: bool
) -> FluencyScale:
    """Measure the scale.

    Args:
        judge: the causal LM that says how likely a prompt is.
        tokenizer: its tokenizer.
        perplexity: the target, > 1, or None.
        percentile: the same as a share of human-written prompts, 0 to 100: at most so many are as likely or likelier.
        own_judge: as `FluencyScale`.

    Raises:
        ValueError: a judge without a next-token head.
    """
    floor, usual = (math.log(human_perplexity(judge, tokenizer, percent)) for percent in (FLOOR_PERCENT, 50))
    random = reference_levels(judge, tokenizer).medians("nll")["random"] or math.inf
    if percentile is not None:
        perplexity = human_perplexity(judge, tokenizer, percentile)
    target = None if perplexity is None else math.log(perplexity)
    return FluencyScale(floor if target is None else min(floor, target), usual, random, target, own_judge)
