"""What a trained prompt is for: labels for new texts and rows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from peft_interp.inference.eval_mode import eval_mode
from peft_interp.inference.max_length import model_max_length
from peft_interp.inference.model_lock import locked
from peft_interp.inference.models import base_model_of
from peft_interp.inference.progress import progress_bar
from peft_interp.metrics.choices import choice_log_probs
from peft_interp.metrics.comparison import make_comparison, task_of
from peft_interp.metrics.label_scores import bias_to_use
from peft_interp.metrics.reading import prompt_config, prompt_vectors
from peft_interp.text.label_bias import LabelBias
from peft_interp.text.placement import placement_of
from peft_interp.text.verbalizer import Verbalizer, check_verbalizer

Texts = str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]


@locked
def classify(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    verbalizer: Verbalizer,
    batch_size: int = 16,
    progress: bool = True,
    label_bias: LabelBias | None = None,
) -> list[dict[str, Any]]:
    """Label texts with the label word that the model finds likeliest after prompt and text.

    Words of several tokens, and a row's own options, are scored as sequences: log P(answer | prompt and text).

    Args:
        model: a causal LM with a prompt adapter of ours or of any of PEFT's prompt methods with input vectors.
        tokenizer: the base model's.
        texts: one or several, or rows of the template's columns; cut, with a warning, where the model has no room.
        verbalizer: template and label words that the prompt was trained with.
        batch_size: most rows at a time.
        progress: show a bar, unless `datasets` or `transformers` are told not to.
        label_bias: what `calibrate` returned for this prompt, added to the label words' scores; None: what is kept with
            the adapter (`model.label_bias()`), if anything is.

    Returns:
        For each text, in order, `{"label": ..., "score": ...}` as transformers' text-classification pipeline has it: a
        label word, or one of the row's options, and its probability among them, 0 to 1. The model and its modes are
        left as they were.

    Raises:
        ValueError: no prompt adapter, one without input vectors (prefix tuning), another task type, a verbalizer that
            does not fit, has nothing to choose from or asks for a calibration that the prompt has no numbers of, or
            something that is no text.
    """
    row = isinstance(texts, Mapping) and {*getattr(verbalizer, "columns", ())} <= {*texts}
    if isinstance(texts, set | frozenset | Mapping) and not row:
        raise ValueError(f"`texts` is a {type(texts).__name__}, whose order is no order of answers; pass a list.")
    texts = [texts] if isinstance(texts, str | Mapping) else list(texts)
    config = prompt_config(model)
    if (task := task_of(config)) != "CAUSAL_LM":
        raise ValueError(f"`task_type={task}` has no label words here, only CAUSAL_LM has; call the model as it is.")
    check_verbalizer(verbalizer, placement_of(config))
    length, bias = len(prompt_vectors(model)), bias_to_use(model, verbalizer, label_bias)
    known = None if verbalizer.options is not None else verbalizer.label_sequences(tokenizer)
    if not texts:
        return []
    choices = [known or verbalizer.label_sequences(tokenizer, text) for text in _checked(texts)]
    rows = _rows(texts, tokenizer, verbalizer, choices, model_max_length(base_model_of(model)), length)
    ids = None if known is None else verbalizer.scored_ids(tokenizer)
    if ids is None:
        scores = _sequence_scores(model, tokenizer, rows, choices, batch_size)
    else:
        scores = _word_scores(model, tokenizer, rows, ids, batch_size, progress)
    if bias is not None:
        scores = scores + bias.tensor().float()
    likeliest, labels = scores.softmax(-1).max(-1)
    words = [verbalizer.answers(text) for text in texts]
    return [
        {"label": answers[label], "score": score}
        for answers, label, score in zip(words, labels.tolist(), likeliest.tolist(), strict=True)
    ]


def _word_scores(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict[str, list[int]]],
    ids: list[int],
    batch_size: int,
    progress: bool,
) -> Tensor:
    """(rows, labels) logits of label words of one token each: one pass for a row."""
    scores = torch.zeros(len(rows), len(ids))
    with eval_mode(model), progress_bar(len(rows), "Labelling texts", progress) as bar:
        setup = make_comparison(model, tokenizer, rows, ids, batch_size, padding_side="right")
        placed, targets = (
            setup.as_prompt(setup.rows),
            [setup.wanted(row, "answers") for row in setup.rows],
        )
        for batch in setup.batches(placed, targets):
            asked = [setup.request(setup.rows[i], placed[i], targets[i], as_prompt=True) for i in batch]
            scores[batch] = setup.prompt.logits(asked)[:, ids].float().cpu()
            bar.update(len(batch))
    return scores


def _sequence_scores(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict[str, list[int]]],
    choices: list[list[list[int]]],
    batch_size: int,
) -> Tensor:
    """(rows, most answers) log-probabilities of whole answers, -inf where a row has fewer: a pass for each answer."""
    with eval_mode(model):
        setup = make_comparison(model, tokenizer, rows, None, batch_size, padding_side="right")
        return choice_log_probs(setup, setup.prompt, setup.rows, choices, setup.as_prompt)


def _checked(texts: Sequence[Any]) -> Sequence[Any]:
    for number, text in enumerate(texts):
        if not isinstance(text, str | Mapping):
            raise ValueError(f"text {number} is a {type(text).__name__} and must be a string; drop or mend it.")
    return texts


def _rows(
    texts: Sequence[str | Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    verbalizer: Verbalizer,
    choices: list[list[list[int]]],
    limit: int | None,
    prompt_length: int,
) -> list[dict[str, list[int]]]:
    """Texts in the template with their longest answer; which one does not matter, nothing is after it."""
    longest = [max(range(len(known)), key=lambda i, known=known: len(known[i])) for known in choices]  # type: ignore[misc]
    given = list(zip(texts, longest, choices, strict=True))
    rows = [verbalizer.encode(tokenizer, text, index, None, known) for text, index, known in given]
    long = [] if limit is None else [i for i, row in enumerate(rows) if prompt_length + len(row["input_ids"]) > limit]
    if limit is not None and long:
        warnings.warn(
            f"{len(long)} of {len(rows)} texts were cut at their end, to fit the model's {limit} positions beside the "
            "prompt.",
            stacklevel=3,
        )
        for i in long:
            text, index, known = given[i]
            rows[i] = verbalizer.encode(tokenizer, text, index, limit - prompt_length, known)
    return rows
