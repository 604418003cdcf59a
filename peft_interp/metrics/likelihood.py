"""NLL of token ids under a causal language model: of one prompt, of many at once, and stock perplexities of texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_interp.inference.batching import Batches, logits_tokens, padded_rows
from peft_interp.inference.eval_mode import eval_mode
from peft_interp.inference.models import AnyModel, base_model_of, input_embeddings
from peft_interp.text.tokenization import as_ids, check_in_vocabulary
from peft_interp.tuner.perplexity import token_nll

DEFAULT_WINDOW = 1024


def language_model(model: AnyModel) -> PreTrainedModel:
    """The plain causal LM after an adapter: a prompt's text is judged without a prompt in front.

    Raises:
        ValueError: the model has no next-token head.
    """
    base = base_model_of(model)
    if not hasattr(base, "config") or base.config.is_encoder_decoder or base.get_output_embeddings() is None:
        raise ValueError(
            f"`model` is a {type(base).__name__}, which does not predict a next token; pass a causal language model "
            "(AutoModelForCausalLM) with its own tokenizer."
        )
    return base


def window(model: PreTrainedModel) -> int:
    """How many tokens are scored at most; longer texts are cut."""
    size = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(size, DEFAULT_WINDOW) if isinstance(size, int) and size > 0 else DEFAULT_WINDOW


@dataclass(frozen=True)
class SequenceReading:
    """What one pass of a language model over a sequence of token ids tells.

    Attributes:
        nll: (length - 1,) nats, fp32: of every token but the first; empty for fewer than two tokens.
        hidden: (dim,) fp32, mean over the tokens of the middle layer's states; only where asked for.
        next_logits: (length, vocabulary) fp32: row i predicts what may stand at place i; only where asked for.
    """

    nll: Tensor
    hidden: Tensor | None = None
    next_logits: Tensor | None = None


def read_sequences(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    leading: Sequence[int] = (),
    hidden: bool = False,
    next_logits: bool = False,
    longest: int | None = None,
    batch_size: int = 64,
    batches: Batches | None = None,
) -> list[SequenceReading]:
    """Run many sequences through a causal language model, in padded batches, without gradient.

    Args:
        model: a causal LM.
        sequences: token ids, any lengths.
        leading: ids in front of each that give context and are not scored (BOS). The first token after them is not
            scored either, so that models with and without BOS are measured alike.
        hidden: also return the mean state of the middle layer.
        next_logits: also return the logits in front of every token. With nothing in `leading` those of the first place
            are 0, as nothing predicts it.
        longest: sequences are cut to so many tokens; None for no limit.
        batch_size: sequences in one pass; those of like length go together, and fewer where memory runs out.
        batches: remembers from call to call how much fits; None: for this call alone.

    Returns:
        A reading for each sequence, in order, on the CPU.

    Raises:
        ValueError: ids outside the vocabulary.
    """
    for ids in sequences:
        check_in_vocabulary(ids, input_embeddings(model))
    rows = [[*leading, *list(ids)[:longest]] for ids in sequences]
    found = [SequenceReading(torch.zeros(0))] * len(rows)
    fewest = 0 if hidden or next_logits else len(leading) + 2  # tokens that make a pass worth while
    order = sorted((i for i in range(len(rows)) if len(rows[i]) >= fewest), key=lambda i: len(rows[i]))
    token_cost = 1.0 + logits_tokens(model)

    def cost(places: range, _: range) -> float:
        return len(places) * len(rows[order[places[-1]]]) * token_cost

    def work(places: range, _: range) -> None:
        part = [order[k] for k in places]
        readings = _padded_pass(model, [rows[i] for i in part], len(leading), hidden, next_logits)
        for i, reading in zip(part, readings, strict=True):
            found[i] = reading

    batches = batches or Batches()
    with eval_mode(model):
        for start in range(0, len(order), batch_size):
            batches.run(work, cost, range(start, min(start + batch_size, len(order))), range(1))
    return found


def _padded_pass(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], lead: int, hidden: bool, next_logits: bool
) -> list[SequenceReading]:
    """One pass over some rows, of which the first `lead` tokens are context."""
    ids, mask = padded_rows(rows, 0, model.device)
    output = model(input_ids=ids, attention_mask=mask, output_hidden_states=hidden, use_cache=False)
    nlls = token_nll(output.logits, ids).cpu()  # (rows, width - 1)
    readings = []
    for i, row in enumerate(rows):
        middle = logits = None
        if hidden:
            states = output.hidden_states[len(output.hidden_states) // 2]
            middle = states[i, lead : len(row)].float().mean(0).cpu()
        if next_logits:
            logits = output.logits[i, max(0, lead - 1) : len(row) - 1].float().cpu()
            logits = logits if lead else nn.functional.pad(logits, (0, 0, 1, 0))
        readings.append(SequenceReading(nlls[i, lead : len(row) - 1].clone(), middle, logits))
    return readings


def token_nlls(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    leading: Sequence[int] = (),
    batch_size: int = 64,
    batches: Batches | None = None,
) -> list[Tensor]:
    """NLL of every token that has a token in front of it, for many sequences at once.

    Args:
        model: a causal LM.
        sequences: token ids, any lengths; cut to the model's window.
        leading, batch_size, batches: as for `read_sequences`.

    Returns:
        One tensor on the CPU for each sequence, (length - 1,), nats, fp32; empty for fewer than two tokens.

    Raises:
        ValueError: ids outside the vocabulary.
    """
    room = window(model) - len(leading)
    readings = read_sequences(model, sequences, leading, longest=room, batch_size=batch_size, batches=batches)
    return [reading.nll for reading in readings]


def text_nll(model: PreTrainedModel | PeftModel, ids: Sequence[int] | Tensor, leading_ids: Sequence[int] = ()) -> float:
    """NLL of a prompt under a causal language model: the log-perplexity of arXiv 2504.02144.

    Args:
        model: a transformers causal LM; of an adapter its base model, without the adapter's own prompt in front.
        ids: (prompt,) token ids of the prompt.
        leading_ids: ids in front of it (BOS), which give context but are not scored.

    Returns:
        Nats per token over tokens 2..L; NaN for prompts of fewer than two tokens. exp() of it is the perplexity.

    Raises:
        ValueError: no list of token ids, ids outside the vocabulary, or a model that predicts no next token.
    """
    known = as_ids(ids, "ids").tolist()
    return mean_nll(read_sequences(language_model(model), [known], leading_ids)[0].nll)


def mean_nll(nlls: Tensor) -> float:
    """Nats per token, lower is more fluent; NaN for fewer than two tokens."""
    return nlls.mean().item() if len(nlls) else math.nan


def perplexities(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    batch_size: int = 16,
    add_start_token: bool = False,
) -> list[float]:
    """Perplexity of each text, as the `perplexity` measurement of `evaluate` defines it.

    Unlike the stock module it takes a live model, needs no padding token, and runs with any tokenizer. Its mean over
    texts is a mean of perplexities, not the exponential of the mean NLL.

    Args:
        model: a causal LM, or an adapter on one (then its base model is asked).
        tokenizer: its tokenizer; no special tokens are added.
        texts: what to score.
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
