"""What the search does not let into its population, however likely a language model finds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peft_interp.metrics.dictionary import dictionary_share
from peft_interp.metrics.flags import find_flags
from peft_interp.metrics.text_measures import piece_texts, words_of


def readable(text: str, ids: Sequence[int], tokenizer: Any, known_words: bool = False) -> bool:
    """Whether no pattern that fools perplexity is in a prompt.

    Args:
        text: the prompt.
        ids: its tokens.
        tokenizer: theirs.
        known_words: also ask that a dictionary has every word, where the text is in English.
    """
    flags = find_flags(text, piece_texts(tokenizer, ids))
    if any(flag.unreadable for flag in flags):
        return False
    english = all(flag.name != "language" for flag in flags)
    return not (known_words and english and dictionary_share(words_of(text)) < 1)
