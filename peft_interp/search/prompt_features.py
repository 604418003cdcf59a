"""What one pass of a language model over a prompt alone tells: how likely it is, and a vector that stands for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from peft_interp.inference.batching import Batches, logits_tokens, reading_batches
from peft_interp.inference.eval_mode import eval_mode
from peft_interp.scoring.examples import padded


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
    model: Any,
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
    nll = torch.full((len(prompts),), torch.nan, dtype=torch.float64)
    features: list[Tensor] = [torch.zeros(0)] * len(prompts)
    logits: list[Tensor] = [torch.zeros(0)] * (len(prompts) if keep_logits else 0)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    token_cost = 1.0 + logits_tokens(model)

    def cost(rows: range, _: range) -> float:
        return len(rows) * (len(front) + max(len(prompts[order[k]]) for k in rows)) * token_cost

    def work(rows: range, _: range) -> None:
        part = [order[k] for k in rows]
        output = _run(model, [[*front, *prompts[i]] for i in part])
        middle = output.hidden_states[len(output.hidden_states) // 2]
        for row, i in enumerate(part):
            end = len(front) + len(prompts[i])
            own = slice(len(front), end)
            features[i] = middle[row, own].float().mean(0).cpu()
            scores = output.logits[row, max(0, len(front) - 1) : end - 1].float()  # predict the prompt's tokens
            ids = torch.tensor(list(prompts[i]), device=scores.device)
            if len(prompts[i]) > 1:
                known = len(prompts[i]) - 1
                nll[i] = nn.functional.cross_entropy(scores[-known:], ids[-known:]).item()
            if keep_logits:
                logits[i] = scores.cpu() if front else nn.functional.pad(scores.cpu(), (0, 0, 1, 0))

    batches = batches or reading_batches(model)
    with eval_mode(model):
        for start in range(0, len(order), batch_size):
            batches.run(work, cost, range(start, min(start + batch_size, len(order))), range(1))
    return PromptFeatures(nll, torch.stack(features) if features else torch.zeros(0, 0), logits)


def _run(model: Any, rows: Sequence[Sequence[int]]) -> Any:
    inputs = {name: values.to(model.device) for name, values in padded([{"input_ids": row} for row in rows]).items()}
    return model(**inputs, output_hidden_states=True, use_cache=False)
