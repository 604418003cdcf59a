"""The measures that every prompt gets from its tokens and one pass of the model, by name, with their directions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

import peft_interp.metrics.text_metrics as measures
from peft_interp.metrics.dictionary import dictionary_share
from peft_interp.metrics.likelihood import mean_nll
from peft_interp.text.tokenization import token_texts

BETTER = {
    "nll": "lower",
    "perplexity": "lower",
    "nll_per_character": "lower",
    "nll_position": "lower",
    "worst_nll": "lower",
    "nll_in_template": "lower",
    "following_nll": "lower",
    "judge_nll": "lower",
    "judge_gap": "higher",
    "repetition": "lower",
    "repetition_penalty": "lower",
    "distinct_1": "higher",
    "distinct_2": "higher",
    "special_share": "lower",
    "blank_share": "lower",
    "punctuation_share": "lower",
    "dictionary_share": "higher",
    "whole_word_share": "higher",
    "ascii_share": "higher",
    "longest_copied": "lower",
    "copied_share": "lower",
    "label_leak": "lower",
    "grammar": "higher",
    "task_similarity": "higher",
    "rating": "higher",
}


def measure_tokens(tokenizer: Any, ids: Sequence[int], nlls: Tensor, text: str | None = None) -> dict[str, float]:
    """Everything that one pass of the language model and the text itself say.

    Args:
        tokenizer: the model's tokenizer.
        ids: (prompt,) token ids.
        nlls: (prompt - 1,) NLL in nats of the tokens from the second on.
        text: the prompt's text; decoded from the ids by default.

    Returns:
        Values by name; `BETTER` has their directions, `scrutability` describes them.
    """
    text = text if text is not None else tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
    pieces = token_texts(tokenizer, ids)
    special = special_ids(tokenizer)
    nll = mean_nll(nlls)
    return {
        "nll": nll,
        "perplexity": math.exp(nll),
        "nll_per_character": per_character(nlls, pieces),
        "worst_nll": nlls.max().item() if len(nlls) else math.nan,
        "repetition": measures.repetition(pieces),
        "repetition_penalty": measures.repetition_penalty(pieces),
        "distinct_1": measures.distinct(pieces, 1),
        "distinct_2": measures.distinct(pieces, 2),
        "special_share": sum(i in special for i in ids) / len(ids) if len(ids) else 0.0,
        "blank_share": measures.blank_share(pieces),
        "punctuation_share": measures.punctuation_share(pieces),
        "dictionary_share": dictionary_share(measures.words_of(text)),
        "whole_word_share": measures.whole_word_share(pieces),
        "ascii_share": measures.ascii_share(text),
    }


def per_character(nlls: Tensor, pieces: Sequence[str]) -> float:
    """NLL in nats per character of the tokens it was measured on: comparable between tokenizers, lower is better."""
    characters = sum(len(piece) for piece in pieces[1 : len(nlls) + 1])
    return nlls.sum().item() / characters if characters else math.nan


def special_ids(tokenizer: Any) -> set[int]:
    """Ids that are no ordinary text: special tokens, and those added to the vocabulary."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {*tokenizer.all_special_ids, *added}
