"""Accuracy of label words after a prompt: `{prompt} {text} It was` -> the likeliest label word."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase

from studies.embedded_model.frames import FRAME


def prompted(prompt: str, texts: Sequence[str], frame: str = FRAME) -> list[str]:
    """The inputs of the evaluation: an empty prompt leaves no leading blank."""
    return [f"{prompt} {text}{frame}".strip() for text in texts]


def label_ids(tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]) -> Tensor:
    """Ids of the label words, each of which must be one token."""
    ids = [tokenizer(label)["input_ids"] for label in labels]
    if any(len(one) != 1 for one in ids):
        raise ValueError(f"labels={list(labels)} must be single tokens of this tokenizer.")
    return torch.tensor([one[0] for one in ids])  # (labels,)


@torch.no_grad()
def label_log_probs(
    model: GPT2LMHeadModel, rows: Sequence[Sequence[int]], labels: Tensor, pad_id: int, batch_size: int = 64
) -> Tensor:
    """Log-probability of each label word after each row, over the whole vocabulary; (rows, labels), natural log.

    Rows are sorted by length and padded on the right, so that no padding stands before a token that is read.
    """
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    found = torch.zeros(len(rows), len(labels))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        longest = len(rows[chosen[-1]])
        ids = torch.tensor([[*rows[i], *[pad_id] * (longest - len(rows[i]))] for i in chosen])
        last = torch.tensor([len(rows[i]) - 1 for i in chosen])
        mask = (torch.arange(longest) <= last[:, None]).long()
        # (batch, longest, width)
        hidden = model.transformer(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[torch.arange(len(chosen)), last])  # (batch, vocabulary)
        found[torch.tensor(chosen)] = logits.float().log_softmax(-1)[:, labels]
    return found


def accuracy(
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    rows: Sequence[tuple[str, int]],
    labels: Sequence[str],
) -> float:
    """Share of rows, 0 to 1, whose likeliest label word is the right one."""
    ids = tokenizer(prompted(prompt, [text for text, _ in rows]))["input_ids"]
    log_probs = label_log_probs(model, ids, label_ids(tokenizer, labels), tokenizer.pad_token_id)
    return float((log_probs.argmax(-1) == torch.tensor([label for _, label in rows])).float().mean())
