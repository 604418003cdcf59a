"""Which alphabets a text is written in: Latin, Cyrillic, Arabic, ... by Unicode's character names."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

EAST_ASIAN = frozenset({"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "IDEOGRAPHIC", "BOPOMOFO"})
_CHANGES, _CHANGE_SHARE = 3, 0.3


def script_of(character: str) -> str:
    """The script of a letter, "LATIN" say; one name for the East Asian ones, which are written together."""
    name = unicodedata.name(character, "").removeprefix("FULLWIDTH ").removeprefix("HALFWIDTH ").split(" ")[0]
    return "EAST ASIAN" if name in EAST_ASIAN else name


def main_script(words: Sequence[str]) -> str:
    """The script of most letters; "" without letters."""
    counts = Counter(script_of(character) for word in words for character in word if character.isalpha())
    return counts.most_common(1)[0][0] if counts else ""


def mixture(words: Sequence[str]) -> list[str]:
    """The scripts of a text in which they are mixed as no writer does: inside a word, or from word to word.

    A quoted foreign word is no mixture. Latin beside East Asian characters inside a word is usual and does not count.

    Args:
        words: words of a text.

    Returns:
        Names of the scripts; empty where nothing is mixed.
    """
    within = [list(dict.fromkeys(script_of(character) for character in word if character.isalpha())) for word in words]
    for found in within:
        if len(set(found) - {"EAST ASIAN"}) > 1:
            return found
    in_turn = [found[0] for found in within if found]
    changes = sum(first != second for first, second in pairwise(in_turn))
    often = changes >= _CHANGES or len(set(in_turn)) > 2
    return sorted(set(in_turn)) if often and changes >= _CHANGE_SHARE * len(in_turn) else []
