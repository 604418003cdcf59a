"""What one pass of a language model over a prompt alone tells: how likely it is, and a vector that stands for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from peft_interp.inference.batching import Batches, reading_batches
from peft_interp.metrics.likelihood import mean_nll, read_sequences

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class PromptFeatures:
    """Some prompts as a language model reads them.

    Attributes:
        nll: (prompts,) nats per token over tokens 2..L, fp64, lower is more fluent; NaN for fewer than two tokens.
        features: (prompts, dim) mean hidden state of the middle layer over the prompt's tokens, fp32.
        next_logits: for each prompt (L, vocabulary): row i predicts what may stand at place i, given what is in front
            of it; only where asked for.
    """

    nll: Tensor
    features: Tensor
    next_logits: list[Tensor]


def extract_features(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    leading: Sequence[int] = (),
    start_id: int | None = None,
    keep_logits: bool = False,
    batch_size: int = 128,
    batches: Batches | None = None,
) -> PromptFeatures:
    """Run prompts alone through a causal language model.

    Args:
        model: the LM, without adapter.
        prompts: token ids, any lengths >= 1.
        leading: ids in front of each that give context and are not scored (BOS).
        start_id: what stands in front where `leading` is empty and `keep_logits` asks what may come first (BOS or
            EOS); it takes no part in `nll` and `features`.
        keep_logits: also return `next_logits`.
        batch_size: most prompts in one pass.
        batches: cuts passes that do not fit; None: by the memory that is free now.

    Returns:
        One reading for all.
    """
    front = list(leading) or ([start_id] if keep_logits and start_id is not None else [])
    batches = batches or reading_batches(model)
    readings = read_sequences(model, prompts, front, True, keep_logits, batch_size=batch_size, batches=batches)
    nll = torch.tensor([mean_nll(reading.nll) for reading in readings], dtype=torch.float64)
    features = [reading.hidden for reading in readings if reading.hidden is not None]
    logits = [reading.next_logits for reading in readings if reading.next_logits is not None]
    return PromptFeatures(nll, torch.stack(features) if features else torch.zeros(0, 0), logits)
