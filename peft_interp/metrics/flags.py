"""Patterns that make a text unreadable although its perplexity may be low: each finds one and says it in words.

Every limit below was set on human-written prompts, of which fewer than 3% may be flagged
(`studies/calibration/README.md` has the measured rate), and each pattern has its negative control in the tests.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import peft_interp.metrics.text_metrics as text_metrics
from peft_interp.metrics.dictionary import dictionary_share, other_language
from peft_interp.metrics.results import Flag

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
    found = (
        too_short(pieces),
        special_tokens(text, len(pieces), special),
        blanks(text, pieces),
        punctuation(text, pieces),
        repeated(_SPECIAL_TEXT.sub(" ", text)),
        broken_characters(text),
        mixed_scripts(text),
        no_words(text),
        boilerplate(text),
        copied(text, training_texts),
        language(text),
        label_leak(text, label_words),
    )
    return tuple(flag for flag in found if flag is not None)


def too_short(pieces: Sequence[str]) -> Flag | None:
    """No token, or a single one: no text that could be judged."""
    if len(pieces) > 1:
        return None
    return Flag("too_short", "a single token is no text to judge" if pieces else "the prompt is empty")


def special_tokens(text: str, length: int, special: int) -> Flag | None:
    """Special tokens, or their names written out where they make a fifth of the words."""
    if special:
        return Flag("special_tokens", f"{special} of {length} tokens {'is' if special == 1 else 'are'} special")
    names = _SPECIAL_TEXT.findall(text)
    if names and len(names) >= SPECIAL_WORDS * (len(text_metrics.words_of(text))):
        return Flag("special_tokens", f"the text holds {_quoted(names)}")
    return None


def blanks(text: str, pieces: Sequence[str]) -> Flag | None:
    """Tokens that show nothing."""
    if not pieces:
        return None
    if not text_metrics.shows_something(text):
        return Flag("blank", "the text shows nothing")
    share = text_metrics.blank_share(pieces)
    if share <= BLANK_SHARE:
        return None
    return Flag("blank", f"{round(share * len(pieces))} of {len(pieces)} tokens show nothing")


def punctuation(text: str, pieces: Sequence[str]) -> Flag | None:
    """Mostly marks, or a long run of tokens that are marks."""
    marks = [bool(piece.strip()) and not text_metrics.is_wordlike(piece) for piece in pieces]
    run = max((len(found) for found in re.findall("1+", "".join("01"[mark] for mark in marks))), default=0)
    if sum(marks) > PUNCTUATION_SHARE * len(pieces) or run >= PUNCTUATION_RUN:
        return Flag("punctuation", f"{sum(marks)} of {len(pieces)} tokens are marks, {run} of them in a row")
    return None


def repeated(text: str) -> Flag | None:
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
    return Flag("repetition", f"{again} of {len(units)} words repeat {_quoted(worst)}")


def broken_characters(text: str) -> Flag | None:
    """Pieces of characters that do not decode."""
    broken = text.count("\ufffd")
    return Flag("broken_characters", f"{broken} pieces of characters do not decode") if broken else None


def mixed_scripts(text: str) -> Flag | None:
    """Letters of several scripts mixed within words, or changing from word to word."""
    names = text_metrics.mixture(text_metrics.words_of(text))
    return Flag("mixed_scripts", f"words change between {_listed(names)} letters") if names else None


def no_words(text: str) -> Flag | None:
    """Too few words that a dictionary has; only texts in Latin letters and no other known language are judged."""
    words = text_metrics.words_of(text)
    if not words:
        digits = any(character.isalnum() for character in text)
        return Flag("no_words", "numbers and no words") if digits else None
    share = dictionary_share(words)
    if share >= WORDS_KNOWN or (share and len(words) < FEWEST_WORDS) or not _judged_as_english(words):
        return None
    known = round(share * len(words))
    return Flag("no_words", f"{len(words) - known} of {len(words)} words are in no dictionary")


def language(text: str) -> Flag | None:
    """A remark: another language than English, whose words were not judged."""
    words = text_metrics.words_of(text)
    if not words or _judged_as_english(words) or text_metrics.mixture(words):
        return None
    script = text_metrics.main_script(words)
    return Flag("language", f"not English ({script.title()} letters): its words were not judged", unreadable=False)


def _judged_as_english(words: Sequence[str]) -> bool:
    if text_metrics.main_script(words) != "LATIN":
        return False
    return dictionary_share(words) >= WORDS_KNOWN or other_language(words) is None


def boilerplate(text: str) -> Flag | None:
    """Phrases that language models know by heart from web pages: addresses, copyright lines, licences."""
    for pattern in _BOILERPLATE:
        if match := pattern.search(text):
            return Flag("boilerplate", f"web boilerplate: {' '.join(match.group().split())[:40]!r}")
    return None


def copied(text: str, training_texts: Sequence[str]) -> Flag | None:
    """Long runs of words from the training texts."""
    if not training_texts:
        return None
    longest = text_metrics.longest_copied(text, training_texts)
    share = text_metrics.copied_share(text, training_texts)
    if longest >= COPIED_RUN or share >= COPIED_SHARE:
        return Flag("copied", f"{longest} words in a row, {share:.0%} of the words, are copied from the training texts")
    return None


def label_leak(text: str, label_words: Sequence[str]) -> Flag | None:
    """A remark: words that the task answers with stand in the prompt, which may favour them."""
    leaked = text_metrics.leaked_labels(text, label_words)
    return Flag("label_leak", f"holds the label words {_quoted(leaked)}", unreadable=False) if leaked else None


def _quoted(words: Sequence[str]) -> str:
    return _listed([repr(word.strip()) for word in dict.fromkeys(words)])


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
