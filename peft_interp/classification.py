"""What a trained prompt is for: labels for new texts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from peft_interp.inference.eval_mode import eval_mode
from peft_interp.inference.max_length import model_max_length
from peft_interp.inference.model_lock import locked
from peft_interp.inference.progress import progress_bar
from peft_interp.metrics.comparison import make_comparison, task_of
from peft_interp.metrics.label_scores import bias_to_use
from peft_interp.metrics.reading import prompt_config, prompt_vectors
from peft_interp.text.label_bias import LabelBias
from peft_interp.text.placement import placement_of
from peft_interp.text.verbalizer import Verbalizer, check_verbalizer


@locked
def classify(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: str | Sequence[str],
    verbalizer: Verbalizer,
    batch_size: int = 16,
    progress: bool = True,
    label_bias: LabelBias | None = None,
) -> list[dict[str, Any]]:
    """Label texts with the label word that the model finds likeliest after prompt and text.

    Args:
        model: a causal LM with a prompt adapter of ours or of any of PEFT's prompt methods with input vectors.
        tokenizer: the base model's.
        texts: one text or several; what the model has no room for is cut at their end, with a warning.
        verbalizer: template and label words that the prompt was trained with.
        batch_size: most rows at a time.
        progress: show a bar, unless `datasets` or `transformers` are told not to.
        label_bias: what `calibrate` returned for this prompt, added to the label words' scores; None: what is kept with
            the adapter (`model.label_bias()`), if anything is.

    Returns:
        For each text, in order, `{"label": ..., "score": ...}` as transformers' text-classification pipeline has it: a
        label word and its probability among the label words, 0 to 1. The model and its modes are left as they were.

    Raises:
        ValueError: no prompt adapter, one without input vectors (prefix tuning), another task type, a verbalizer that
            does not fit or asks for a calibration that the prompt has no numbers of, or something that is no text.
    """
    if isinstance(texts, set | frozenset | Mapping):
        raise ValueError(f"`texts` is a {type(texts).__name__}, whose order is no order of answers; pass a list.")
    texts = [texts] if isinstance(texts, str) else list(texts)
    config = prompt_config(model)
    if (task := task_of(config)) != "CAUSAL_LM":
        raise ValueError(f"`task_type={task}` has no label words here, only CAUSAL_LM has; call the model as it is.")
    check_verbalizer(verbalizer, placement_of(config))
    ids, length = verbalizer.label_token_ids(tokenizer), len(prompt_vectors(model))
    bias = bias_to_use(model, verbalizer, label_bias)
    added = torch.zeros(len(ids)) if bias is None else bias.tensor().float()
    if not texts:
        return []
    rows = _rows(texts, tokenizer, verbalizer, model_max_length(model.get_base_model()), length)
    shares = torch.zeros(len(rows), len(ids))
    with eval_mode(model), progress_bar(len(rows), "Labelling texts", progress) as bar:
        setup = make_comparison(model, tokenizer, rows, ids, batch_size, padding_side="right")
        placed, targets = (
            setup.as_prompt(setup.rows),
            [setup.wanted(row, "answers") for row in setup.rows],
        )
        for batch in setup.batches(placed, targets):
            asked = [setup.request(setup.rows[i], placed[i], targets[i], as_prompt=True) for i in batch]
            shares[batch] = (setup.prompt.logits(asked)[:, ids].float().cpu() + added).softmax(-1)
            bar.update(len(batch))
    likeliest, labels = shares.max(-1)
    return [
        {"label": verbalizer.label_words[label], "score": score}
        for label, score in zip(labels.tolist(), likeliest.tolist(), strict=True)
    ]


def _rows(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    verbalizer: Verbalizer,
    limit: int | None,
    prompt_length: int,
) -> list[dict[str, list[int]]]:
    """Texts in the template; which label stands in the answer's place does not matter, nothing is after it."""
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"text {number} is a {type(text).__name__} and must be a string; drop or mend it.")
    known = verbalizer.label_token_ids(tokenizer)
    rows = [verbalizer.encode(tokenizer, text, 0, None, known) for text in texts]
    long = [] if limit is None else [i for i, row in enumerate(rows) if prompt_length + len(row["input_ids"]) > limit]
    if limit is not None and long:
        warnings.warn(
            f"{len(long)} of {len(rows)} texts were cut at their end, to fit the model's {limit} positions beside the "
            "prompt.",
            stacklevel=3,
        )
        for i in long:
            rows[i] = verbalizer.encode(tokenizer, texts[i], 0, limit - prompt_length, known)
    return rows
