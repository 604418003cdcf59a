"""Stock prompt tuning: continuous vectors in front of the embedded text, the model frozen."""

import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase

from studies.embedded_model.frames import FRAME
from studies.embedded_model.probe import label_ids

Rows = Sequence[tuple[str, int]]


def soft_log_probs(model: GPT2LMHeadModel, prompt: Tensor, ids: list[list[int]], labels: Tensor) -> Tensor:
    """Log-probability of the label words after `[prompt vectors][text]`; (rows, labels), right-padded inside."""
    longest = max(map(len, ids))
    padded = torch.tensor([[*row, *[0] * (longest - len(row))] for row in ids])
    vectors = torch.cat([prompt.expand(len(ids), -1, -1), model.transformer.wte(padded)], 1)
    hidden = model.transformer(inputs_embeds=vectors, use_cache=False).last_hidden_state
    last = torch.tensor([len(prompt) + len(row) - 1 for row in ids])
    return model.lm_head(hidden[torch.arange(len(ids)), last]).log_softmax(-1)[:, labels]


def encode(tokenizer: PreTrainedTokenizerBase, rows: Rows) -> list[list[int]]:
    """Ids of ` {text} It was`, the blank that parts prompt and text included."""
    return list(tokenizer([f" {text}{FRAME}" for text, _ in rows])["input_ids"])


def train_soft_prompt(
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    labels: Sequence[str],
    length: int = 10,
    steps: int = 400,
    batch_size: int = 32,
    learning_rate: float = 0.01,
    seed: int = 0,
) -> Tensor:
    """Tune a prompt of `length` vectors on the label words' cross-entropy; starts at random token rows.

    Returns:
        The vectors, (length, width).
    """
    model.eval().requires_grad_(False)
    rng = random.Random(seed)
    start = torch.tensor(rng.choices(range(2, len(tokenizer)), k=length))
    prompt = nn.Parameter(model.transformer.wte.weight[start].clone())
    optimizer = torch.optim.Adam([prompt], lr=learning_rate)
    ids, words = encode(tokenizer, rows), label_ids(tokenizer, labels)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 - step / steps)
        chosen = rng.sample(range(len(rows)), min(batch_size, len(rows)))
        log_probs = soft_log_probs(model, prompt, [ids[i] for i in chosen], words)
        loss = nn.functional.cross_entropy(log_probs, torch.tensor([rows[i][1] for i in chosen]))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return prompt.detach()


@torch.no_grad()
def soft_accuracy(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, prompt: Tensor, rows: Rows, labels: Sequence[str]
) -> float:
    """Share of rows, 0 to 1, whose likeliest label word after the soft prompt is the right one."""
    ids, words = encode(tokenizer, rows), label_ids(tokenizer, labels)
    right = 0
    order = sorted(range(len(rows)), key=lambda index: len(ids[index]))
    for start in range(0, len(order), 64):
        chosen = order[start : start + 64]
        found = soft_log_probs(model, prompt, [ids[i] for i in chosen], words).argmax(-1)
        right += int((found == torch.tensor([rows[i][1] for i in chosen])).sum())
    return right / len(rows)
