"""Which words are words: pyspellchecker's frequency lists, loaded when first asked for.

An entry counts if it is used often enough for its length. Short entries of such lists are mostly abbreviations and
pieces of words ("ing", "th"), which a gibberish prompt is made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

OTHER_LANGUAGES = ("es", "fr", "de", "it", "nl", "pt")  # Latin script; tried where a text is not English
_SHORT_LETTERS, _SHORT_RATE, _LONG_RATE = 3, 5e-6, 3e-8
_ONE_LETTER = {
    "en": {"a", "i"},
    "es": {"a", "e", "o", "y"},
    "fr": {"a", "y", "à"},
    "it": {"a", "e", "i", "o", "è"},
    "pt": {"a", "e", "o", "à", "é"},
}
_OTHER_SHARE, _OTHER_WORDS, _OTHER_RATE = 0.7, 4, 2e-6


@cache
def word_rates(language: str = "en") -> dict[str, float]:
    """Rates of use of a language's words.

    Args:
        language: "en" or one of `OTHER_LANGUAGES`.

    Returns:
        Word in lower case -> its share of running text, 0 to 1. Rare entries, and more so short ones, and single
        letters that are no word are left out.
    """
    from spellchecker import SpellChecker

    counts = SpellChecker(language=language, distance=1).word_frequency
    total, letters = counts.total_words, _ONE_LETTER.get(language, set())
    rates = {word: count / total for word, count in counts.items()}
    return {word: rate for word, rate in rates.items() if _counts(word, rate, letters)}


def _counts(word: str, rate: float, letters: set[str]) -> bool:
    if len(word) == 1:
        return word in letters
    return rate >= (_SHORT_RATE if len(word) <= _SHORT_LETTERS else _LONG_RATE)


def dictionary_share(words: Sequence[str], language: str = "en") -> float:
    """Share of words that are in a dictionary with a frequency that is not negligible.

    Args:
        words: words of a text, in any case; numbers left out.
        language: "en" or one of `OTHER_LANGUAGES`.

    Returns:
        0 to 1, higher is more readable; NaN without words. New names and technical terms ("ChatGPT") count as unknown.
    """
    if not words:
        return float("nan")
    known = word_rates(language)
    return sum(_is_known(word.lower().replace("’", "'"), known) for word in words) / len(words)


def _is_known(word: str, known: dict[str, float]) -> bool:
    return word in known or word.removesuffix("'s") in known


def other_language(words: Sequence[str]) -> str | None:
    """The language other than English that a text in Latin script is plainly written in.

    Args:
        words: words of a text, in any case.

    Returns:
        One of `OTHER_LANGUAGES` where at least 70% of at least four different words are common words of it (one in
        500,000 or more) and English does not know as many; else None. The lists are loaded at the first call that
        needs them, about two seconds in all.
    """
    different = {word.lower().replace("’", "'") for word in words}
    if len(different) < _OTHER_WORDS:
        return None
    shares = {language: _common_share(different, language) for language in ("en", *OTHER_LANGUAGES)}
    best = max(shares, key=lambda language: shares[language])
    return best if best != "en" and shares[best] >= _OTHER_SHARE else None


def _common_share(words: set[str], language: str) -> float:
    rates = word_rates(language)
    return sum(rates.get(word, 0.0) >= _OTHER_RATE for word in words) / len(words)
