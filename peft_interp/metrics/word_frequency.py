"""How common the words of a text are, whatever the tokenizer: what a likelihood has to be corrected by.

A rare word makes a sentence unlikely and no less acceptable (SLOR: Pauls & Klein 2012; Lau, Clark & Lappin 2017). The
counts are pyspellchecker's English ones.
"""

from __future__ import annotations

import math
import re
from functools import cache

UNSEEN_COUNT = 0.5
MARK_RATE, NUMBER_RATE = 0.03, 1e-4  # of one mark, of one number: about what they are in running text
_UNIT = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+|[^\w\s]")


@cache
def _counts() -> tuple[dict[str, int], int]:
    from spellchecker import SpellChecker

    frequency = SpellChecker(language="en", distance=1).word_frequency
    return dict(frequency.items()), frequency.total_words


def log_rate(unit: str) -> float:
    """Log of the share that a word, number or mark has in running English text, nats, < 0; case aside."""
    if unit.isdigit():
        return math.log(NUMBER_RATE)
    if not unit[0].isalpha():
        return math.log(MARK_RATE)
    counts, total = _counts()
    return math.log((counts.get(unit.lower().replace("’", "'"), 0) + UNSEEN_COUNT) / total)


def text_log_rate(text: str) -> float:
    """Log-probability of a text's words, numbers and marks drawn by their rates alone, nats, <= 0; 0 for no text."""
    return math.fsum(log_rate(unit) for unit in _UNIT.findall(text))
