"""The loop that RLPrompt's published procedure (arXiv 2205.12548) describes, written straightforwardly.

Prompt by prompt: one batch of all examples with the prompt, one forward pass with logits at every position, the
distribution over the whole vocabulary at the last one, then the label words.
"""

from typing import Any

import torch
from torch import Tensor

from benchmarks.scoring.setting import LABEL_WORDS


@torch.no_grad()
def label_log_probs(model: Any, texts: Tensor, prompts: Tensor, position: str) -> Tensor:
    """Log-probabilities of the label words, normalised over them: (prompts, examples, labels)."""
    found = []
    for prompt in prompts:
        repeated = prompt.expand(len(texts), -1)
        ids = torch.cat((texts, repeated) if position == "end" else (repeated, texts), dim=1)
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits  # (examples, length, vocabulary)
        probabilities = logits[:, -1].softmax(-1)[:, list(LABEL_WORDS)]
        found.append((probabilities / probabilities.sum(-1, keepdim=True)).log())
    return torch.stack(found)
