"""What can be measured on a prompt's text and tokens without a model: pure functions on strings.

A *piece* is the text of one token with its leading blank (" film", "ing", "</s>"), as `token_texts` makes it.
Shares run from 0 to 1.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
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


_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_UNIT = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\d_]+(?:['’][^\W\d_]+)*|\d+")
COPY_LENGTH = 5  # words; shorter runs occur by chance


def words_of(text: str) -> list[str]:
    """The words of a text as they stand; numbers and marks are left out, "don't" is one word."""
    return _WORD.findall(text)


def units_of(text: str) -> list[str]:
    """Words and numbers, case-folded; Chinese and Japanese, which set no blanks, character by character."""
    return [unit.casefold() for unit in _UNIT.findall(text)]


def repetition(pieces: Sequence[str]) -> float:
    """Share of tokens that repeat an earlier one, case and blanks aside; lower is better. Grows with length."""
    return (len(pieces) - len(set(_folded(pieces)))) / len(pieces) if pieces else 0.0


def repetition_penalty(pieces: Sequence[str]) -> float:
    """FLRT's penalty: the sum over tokens of (count - 1)^1.5, divided by the length; >= 0, lower is better."""
    counts = Counter(_folded(pieces))
    return sum((count - 1) ** 1.5 for count in counts.values()) / len(pieces) if pieces else 0.0


def distinct(pieces: Sequence[str], n: int) -> float:
    """Different n-grams of tokens by all n-grams, case and blanks aside; 1 without repeats, higher is better."""
    folded = _folded(pieces)
    grams = list(zip(*(folded[i:] for i in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else 1.0


def recent_repeats(pieces: Sequence[str], reach: int = 2) -> list[int]:
    """Places of the tokens that equal one of the `reach` tokens before them: "A A", and "A B A B" with a reach of 2.

    Blank tokens and marks do not count.
    """
    folded = _folded(pieces)
    return [i for i, piece in enumerate(folded) if is_wordlike(piece) and piece in folded[max(0, i - reach) : i]]


def _folded(pieces: Sequence[str]) -> list[str]:
    return [piece.strip().casefold() for piece in pieces]


def is_wordlike(piece: str) -> bool:
    """Whether a piece holds a letter or a digit, or a part of a character that needs several tokens."""
    return any(character.isalnum() or character == "\ufffd" for character in piece)


def shows_something(text: str) -> bool:
    """Whether a text holds a character that can be seen."""
    return any(character.isprintable() and not character.isspace() for character in text)


def blank_share(pieces: Sequence[str]) -> float:
    """Share of tokens that show nothing (blanks, line ends, zero-width and control characters); lower is better."""
    return _share(pieces, lambda piece: not shows_something(piece))


def punctuation_share(pieces: Sequence[str]) -> float:
    """Share of tokens that are marks only; lower is better."""
    return _share(pieces, lambda piece: bool(piece.strip()) and not is_wordlike(piece))


def whole_word_share(pieces: Sequence[str]) -> float:
    """Share of the letter tokens that are a word by themselves: nothing but a mark or a blank on either side.

    Higher is better. Depends on the tokenizer: rare words are made of pieces.
    """
    letters = [i for i, piece in enumerate(pieces) if piece.strip().isalpha()]
    whole = [i for i in letters if _opens(pieces, i) and (i + 1 == len(pieces) or _opens(pieces, i + 1))]
    return len(whole) / len(letters) if letters else 0.0


def _opens(pieces: Sequence[str], i: int) -> bool:
    """Whether token i does not go on with a word of the token before."""
    if i == 0 or not pieces[i] or not pieces[i][0].isalnum():
        return True
    return not pieces[i - 1][-1:].isalnum()


def ascii_share(text: str) -> float:
    """Share of characters that are ASCII; says which alphabet, not how readable."""
    return sum(character.isascii() for character in text) / len(text) if text else 1.0


def longest_copied(text: str, training_texts: Sequence[str]) -> int:
    """Words of the longest run of words that stands in a training text as well; lower is better."""
    return max((run for run in _copied_runs(text, training_texts)), default=0)


def copied_share(text: str, training_texts: Sequence[str]) -> float:
    """Share of the words inside copied runs of at least `COPY_LENGTH` words; lower is better."""
    runs = _copied_runs(text, training_texts)
    copied: set[int] = set()
    for start, run in enumerate(runs):
        copied.update(range(start, start + run) if run >= COPY_LENGTH else ())
    return len(copied) / len(runs) if runs else 0.0


def _copied_runs(text: str, training_texts: Sequence[str]) -> list[int]:
    """For each word, how many words from there on stand together in one of the training texts."""
    words = [word.casefold() for word in words_of(text)]
    joined = [" " + " ".join(word.casefold() for word in words_of(other)) + " " for other in training_texts]
    runs: list[int] = []
    for start in range(len(words)):
        run = max(0, runs[-1] - 1) if runs else 0  # what is left of the run before is copied as well
        while start + run < len(words) and _occurs(words[start : start + run + 1], joined):
            run += 1
        runs.append(run)
    return runs


def _occurs(words: Sequence[str], joined: Sequence[str]) -> bool:
    wanted = " " + " ".join(words) + " "
    return any(wanted in other for other in joined)


def leaked_labels(text: str, label_words: Sequence[str]) -> list[str]:
    """The label words that stand in a text as words, case aside."""
    present = {word.casefold() for word in words_of(text)}
    return [word for word in label_words if word.strip().casefold() in present]


def _share(pieces: Sequence[str], test: Callable[[str], object]) -> float:
    return sum(map(bool, map(test, pieces))) / len(pieces) if pieces else 0.0
