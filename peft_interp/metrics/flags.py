"""Patterns that make a text unreadable although its perplexity may be low: each finds one and says it in words.

Every limit below was set on human-written prompts, of which fewer than 3% may be flagged
(`studies/calibration/README.md` has the measured rate), and each pattern has its negative control in the tests.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import peft_interp.metrics.text_metrics as text_metrics
from peft_interp.metrics.dictionary import dictionary_share, other_language
from peft_interp.metrics.results import Flag
from peft_interp.records import markdown_table

RECENT_SHARE = 0.25  # of words that equal one of the two before them
DISTINCT_2 = 0.6  # different pairs of words by all pairs
TOP_SHARE, TOP_COUNT = 0.3, 3  # of the words are the same long one
TOP_LETTERS = 4
BLANK_SHARE = 0.3
PUNCTUATION_SHARE, PUNCTUATION_RUN = 0.5, 6
WORDS_KNOWN, FEWEST_WORDS = 0.6, 3
SPECIAL_WORDS = 0.2
COPIED_SHARE, COPIED_RUN = 0.5, 8

BOILERPLATE = (
    r"\b(?:https?://|www\.)\S+",
    r"\ball rights reserved\b",
    r"(?:©|\(c\)|\bcopyright\b)\s*(?:©|\(c\))?\s*(?:19|20)\d\d",
    r"\bclick here to\b|\bclick the link below\b",
    r"\bsubscribe to (?:our|the|my) (?:newsletter|channel|mailing)",
    r"\bsign up for (?:our|the) newsletter\b",
    r"\bterms (?:of (?:use|service)|and conditions)\b.*\bprivacy policy\b",
    r"\bprivacy policy\b.*\bterms (?:of (?:use|service)|and conditions)\b",
    r"\b(?:we use|this (?:web)?site uses) cookies\b",
    r"\blicen[sc]ed under the\b|\bpermission is hereby granted\b|\bwithout warrant(?:y|ies) (?:of any kind|or)\b",
    r"\bpowered by wordpress\b|\bposted (?:by|on)\b.*\b\d+ comments\b|\bshare this:",
)
_BOILERPLATE = [re.compile(pattern, re.IGNORECASE | re.DOTALL) for pattern in BOILERPLATE]
_SPECIAL_TEXT = re.compile(
    r"</?s>|<\|[^|<>]{1,30}\|>|<(?:pad|unk|bos|eos|mask|cls|sep)>|\[(?:PAD|UNK|CLS|SEP|MASK)\]", re.I
)


class Parts(NamedTuple):
    """What patterns are looked for in; the fields are the arguments of `find_flags`."""

    text: str
    pieces: Sequence[str]
    special: int
    label_words: Sequence[str]
    training_texts: Sequence[str]


@dataclass(frozen=True)
class Pattern:
    """Something that makes a text unreadable, or that a reader should know.

    Attributes:
        name: of the flag.
        words: what was found, in words; None for nothing.
        meaning: what it looks for.
        unreadable: False for a mere remark.
    """

    name: str
    words: Callable[[Parts], str | None]
    meaning: str
    unreadable: bool = True


def find_flags(
    text: str,
    pieces: Sequence[str],
    special: int = 0,
    label_words: Sequence[str] = (),
    training_texts: Sequence[str] = (),
) -> tuple[Flag, ...]:
    """All patterns found in a prompt.

    Args:
        text: the prompt's text.
        pieces: the text of each token.
        special: how many of the tokens are special ones.
        label_words: words that the task answers with.
        training_texts: texts that the prompt should not be copied from.

    Returns:
        Flags in a fixed order: what makes the text unreadable first, remarks (label words, another language) last.
    """
    parts = Parts(text, pieces, special, label_words, training_texts)
    found = ((pattern, pattern.words(parts)) for pattern in PATTERNS)
    return tuple(Flag(pattern.name, words, pattern.unreadable) for pattern, words in found if words is not None)


def too_short(pieces: Sequence[str]) -> str | None:
    """No token, or a single one: no text that could be judged."""
    if len(pieces) > 1:
        return None
    return "a single token is no text to judge" if pieces else "the prompt is empty"


def special_tokens(text: str, length: int, special: int) -> str | None:
    """Special tokens, or their names written out where they make a fifth of the words."""
    if special:
        return f"{special} of {length} tokens {'is' if special == 1 else 'are'} special"
    names = _SPECIAL_TEXT.findall(text)
    if names and len(names) >= SPECIAL_WORDS * (len(text_metrics.words_of(text))):
        return f"the text holds {_quoted(names)}"
    return None


def blanks(text: str, pieces: Sequence[str]) -> str | None:
    """Tokens that show nothing."""
    if not pieces:
        return None
    if not text_metrics.shows_something(text):
        return "the text shows nothing"
    share = text_metrics.blank_share(pieces)
    if share <= BLANK_SHARE:
        return None
    return f"{round(share * len(pieces))} of {len(pieces)} tokens show nothing"


def punctuation(text: str, pieces: Sequence[str]) -> str | None:
    """Mostly marks, or a long run of tokens that are marks."""
    marks = [bool(piece.strip()) and not text_metrics.is_wordlike(piece) for piece in pieces]
    run = max((len(found) for found in re.findall("1+", "".join("01"[mark] for mark in marks))), default=0)
    if sum(marks) > PUNCTUATION_SHARE * len(pieces) or run >= PUNCTUATION_RUN:
        return f"{sum(marks)} of {len(pieces)} tokens are marks, {run} of them in a row"
    return None


def repeated(text: str) -> str | None:
    """A word again and again, two words in turn, or a loop of several."""
    units = text_metrics.units_of(text)
    if len(units) < 2:
        return None
    counts = Counter(units)
    recent = len(text_metrics.recent_repeats(units))
    top = max((count for unit, count in counts.items() if len(unit) >= TOP_LETTERS), default=0)
    few_pairs = len(units) > TOP_COUNT and text_metrics.distinct(units, 2) < DISTINCT_2
    often = recent >= RECENT_SHARE * len(units) and (recent >= 2 or len(units) <= TOP_COUNT)
    if not (often or few_pairs or (top >= TOP_COUNT and top >= TOP_SHARE * len(units))):
        return None
    again = sum(count - 1 for count in counts.values())
    worst = [unit for unit, count in counts.most_common(2) if count > 1 and 2 * count >= max(counts.values())]
    return f"{again} of {len(units)} words repeat {_quoted(worst)}"


def broken_characters(text: str) -> str | None:
    """Pieces of characters that do not decode."""
    broken = text.count("\ufffd")
    return f"{broken} pieces of characters do not decode" if broken else None


def mixed_scripts(text: str) -> str | None:
    """Letters of several scripts mixed within words, or changing from word to word."""
    names = text_metrics.mixture(text_metrics.words_of(text))
    return f"words change between {_listed(names)} letters" if names else None


def no_words(text: str) -> str | None:
    """Too few words that a dictionary has; only texts in Latin letters and no other known language are judged."""
    words = text_metrics.words_of(text)
    if not words:
        digits = any(character.isalnum() for character in text)
        return "numbers and no words" if digits else None
    share = dictionary_share(words)
    if share >= WORDS_KNOWN or (share and len(words) < FEWEST_WORDS) or not _judged_as_english(words):
        return None
    known = round(share * len(words))
    return f"{len(words) - known} of {len(words)} words are in no dictionary"


def language(text: str) -> str | None:
    """A remark: another language than English, whose words were not judged."""
    words = text_metrics.words_of(text)
    if not words or _judged_as_english(words) or text_metrics.mixture(words):
        return None
    script = text_metrics.main_script(words)
    return f"not English ({script.title()} letters): its words were not judged"


def _judged_as_english(words: Sequence[str]) -> bool:
    if text_metrics.main_script(words) != "LATIN":
        return False
    return dictionary_share(words) >= WORDS_KNOWN or other_language(words) is None


def boilerplate(text: str) -> str | None:
    """Phrases that language models know by heart from web pages: addresses, copyright lines, licences."""
    for pattern in _BOILERPLATE:
        if match := pattern.search(text):
            return f"web boilerplate: {' '.join(match.group().split())[:40]!r}"
    return None


def copied(text: str, training_texts: Sequence[str]) -> str | None:
    """Long runs of words from the training texts."""
    if not training_texts:
        return None
    longest = text_metrics.longest_copied(text, training_texts)
    share = text_metrics.copied_share(text, training_texts)
    if longest >= COPIED_RUN or share >= COPIED_SHARE:
        return f"{longest} words in a row, {share:.0%} of the words, are copied from the training texts"
    return None


def label_leak(text: str, label_words: Sequence[str]) -> str | None:
    """A remark: some words that the task answers with stand in the prompt, which may favour them.

    A prompt that names all of them, each as often ("terrible or great?"), says what its classes are and favours none.
    """
    leaked = text_metrics.leaked_labels(text, label_words)
    counts = Counter(word.casefold() for word in text_metrics.words_of(text))
    often = {counts[word.strip().casefold()] for word in label_words}
    names_its_classes = len(label_words) > 1 and len(leaked) == len(label_words) and len(often) == 1
    return f"holds the label words {_quoted(leaked)}" if leaked and not names_its_classes else None


def _quoted(words: Sequence[str]) -> str:
    return _listed([repr(word.strip()) for word in dict.fromkeys(words)])


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


PATTERNS = (
    Pattern("too_short", lambda x: too_short(x.pieces), "no token, or a single one"),
    Pattern(
        "special_tokens", lambda x: special_tokens(x.text, len(x.pieces), x.special), "special tokens, or names of them"
    ),
    Pattern("blank", lambda x: blanks(x.text, x.pieces), "tokens that show nothing"),
    Pattern("punctuation", lambda x: punctuation(x.text, x.pieces), "mostly marks, or many in a row"),
    Pattern(
        "repetition", lambda x: repeated(_SPECIAL_TEXT.sub(" ", x.text)), "words again and again, or loops of them"
    ),
    Pattern("broken_characters", lambda x: broken_characters(x.text), "pieces of characters that do not decode"),
    Pattern("mixed_scripts", lambda x: mixed_scripts(x.text), "letters of several scripts, mixed as no writer does"),
    Pattern("no_words", lambda x: no_words(x.text), "too few words that a dictionary has"),
    Pattern("boilerplate", lambda x: boilerplate(x.text), "phrases that models know by heart from web pages"),
    Pattern("copied", lambda x: copied(x.text, x.training_texts), "long runs of words from the training texts"),
    Pattern("language", lambda x: language(x.text), "another language than English, whose words are not judged", False),
    Pattern(
        name="label_leak",
        words=lambda x: label_leak(x.text, x.label_words),
        meaning="words that the task answers with, unless all are named as often",
        unreadable=False,
    ),
)


def flag_table() -> str:
    """`PATTERNS` as Markdown."""
    rows = [[f"`{p.name}`", p.meaning, "unreadable" if p.unreadable else "a remark"] for p in PATTERNS]
    return markdown_table(("flag", "what it finds", "verdict"), rows)
