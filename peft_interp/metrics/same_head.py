"""What a trained head does by itself: the task under the same head, with random prompts in the trained one's place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from tqdm.auto import tqdm

from peft_interp.inference.eval_mode import eval_mode, lasting_tensors
from peft_interp.metrics.task_outcomes import adapter_contender, common_targets
from peft_interp.text.rows import Rows

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

DRAWS = 3


def random_prompt_accuracy(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    batch_size: int = 32,
    adapter_name: str | None = None,
    seed: int = 0,
) -> float:
    """Mean accuracy of a classifier with its trained head and `DRAWS` prompts of random allowed tokens.

    Args:
        model: a readable prompt with a trained head.
        tokenizer: the model's.
        rows: tokenised examples with one class each.
        batch_size: rows at a time.
        adapter_name: None for the active one.
        seed: of the random prompts.

    Returns:
        0 to 1. Where it is that of the trained prompt, the head has learned the task and the prompt explains nothing.
        The adapter is left as it was.
    """
    encoder = model._encoder(adapter_name)
    allowed = encoder.tokens.allowed.nonzero().flatten()
    draw = torch.Generator().manual_seed(seed)
    names = ("latent", "ids")
    before = {name: getattr(encoder, name).detach().clone() for name in names}
    found = []
    try:
        for _ in range(DRAWS):
            ids = allowed[torch.randint(len(allowed), (len(encoder.ids),), generator=draw)]
            encoder.set_ids(ids.to(encoder.ids.device))
            contender = adapter_contender(model, tokenizer, rows, None, batch_size, adapter_name)
            with tqdm(disable=True) as bar, eval_mode(model, adapter_name):
                totals = contender.outcome(common_targets([contender]), bar)
            found.append(totals.right / max(1, totals.rows))
    finally:
        with lasting_tensors():
            for name in names:
                getattr(encoder, name).copy_(before[name])
            encoder._projected = before["latent"]
    return sum(found) / len(found)
