"""NLL of many prompts at once under a causal language model, and stock perplexities of texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from peft_interp.inference.batching import Batches
from peft_interp.inference.eval_mode import eval_mode
from peft_interp.text.tokenization import check_in_vocabulary

DEFAULT_WINDOW = 1024


def language_model(model: Any) -> Any:
    """The plain causal LM after an adapter: a prompt's text is judged without a prompt in front.

    Raises:
        ValueError: the model has no next-token head.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    if not hasattr(base, "config") or base.config.is_encoder_decoder or base.get_output_embeddings() is None:
        raise ValueError(
            f"`model` is a {type(base).__name__}, which does not predict a next token; pass a causal language model "
            "(AutoModelForCausalLM) with its own tokenizer."
        )
    return base


def window(model: Any) -> int:
    """How many tokens are scored at most; longer texts are cut."""
    size = getattr(model.config, "max_position_embeddings", None)
    return min(size, DEFAULT_WINDOW) if isinstance(size, int) and size > 0 else DEFAULT_WINDOW


def token_nlls(
    model: Any,
    sequences: Sequence[Sequence[int]],
    leading: Sequence[int] = (),
    batch_size: int = 64,
    batches: Batches | None = None,
) -> list[Tensor]:
    """NLL of every token that has a token in front of it, for many sequences at once.

    Args:
        model: a causal LM.
        sequences: token ids, any lengths; cut to the model's window.
        leading: ids in front of each that give context and are not scored (BOS). The first token after them is not
            scored either, so that models with and without BOS are measured alike.
        batch_size: sequences in one pass; those of like length go together, and fewer where memory runs out.
        batches: remembers from call to call how much fits; None: for this call alone.

    Returns:
        One tensor on the CPU for each sequence, (length - 1,), nats, fp32; empty for fewer than two tokens.

    Raises:
        ValueError: ids outside the vocabulary.
    """
    for ids in sequences:
        check_in_vocabulary(ids, model.get_input_embeddings())
    room = window(model) - len(leading)
    rows = [[*leading, *list(ids)[:room]] for ids in sequences]
    found: list[Tensor] = [torch.zeros(0)] * len(rows)
    order = sorted((i for i in range(len(rows)) if len(rows[i]) > len(leading) + 1), key=lambda i: len(rows[i]))

    def cost(places: range, _: range) -> float:
        return len(places) * len(rows[order[places[-1]]])

    def work(places: range, _: range) -> None:
        part = [order[k] for k in places]
        nll = _padded_nll(model, [rows[i] for i in part])
        for i, values in zip(part, nll, strict=True):
            found[i] = values[len(leading) : len(rows[i]) - 1].clone()

    batches = batches or Batches()
    with eval_mode(model):
        for start in range(0, len(order), batch_size):
            batches.run(work, cost, range(start, min(start + batch_size, len(order))), range(1))
    return found


def _padded_nll(model: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=model.device)
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]  # (batch, longest - 1, vocabulary)
    targets = ids[:, 1:].to(logits.device)
    return nn.functional.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none").cpu()


def mean_nll(nlls: Tensor) -> float:
    """Nats per token, lower is more fluent; NaN for fewer than two tokens."""
    return nlls.mean().item() if len(nlls) else math.nan


def perplexities(
    texts: Sequence[str], model: Any, tokenizer: Any, batch_size: int = 16, add_start_token: bool = False
) -> list[float]:
    """Perplexity of each text, as the `perplexity` measurement of `evaluate` defines it.

    Unlike the stock module it takes a live model, needs no padding token, and runs with any tokenizer. Its mean over
    texts is a mean of perplexities, not the exponential of the mean NLL.

    Args:
        texts: what to score.
        model: a causal LM, or an adapter on one (then its base model is asked).
        tokenizer: its tokenizer; no special tokens are added.
        batch_size: texts in one pass.
        add_start_token: put BOS in front, so that the first token is scored too.

    Returns:
        One number for each text, >= 1, lower is more fluent; NaN where there is nothing to score.

    Raises:
        ValueError: `add_start_token` without a BOS token.
    """
    if add_start_token and tokenizer.bos_token_id is None:
        raise ValueError("`add_start_token=True` needs a BOS token and this tokenizer has none; use False.")
    start = [tokenizer.bos_token_id] if add_start_token else []
    sequences = [[*start, *tokenizer.encode(text, add_special_tokens=False)] for text in texts]
    nlls = token_nlls(language_model(model), sequences, batch_size=batch_size)
    return [math.exp(mean_nll(values)) for values in nlls]
