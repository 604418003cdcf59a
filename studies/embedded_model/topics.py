"""Seeded generator of topical, news-like sentences for training a tiny language model.

The text is made from word lists written for this project (`topic_lexicon.json`): a sentence is a
pattern whose `{slots}` are filled, recursively, with a random entry of the topic's list of that
name, else of the shared list. An entry listed twice is drawn twice as often.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

TOPICS: tuple[str, ...] = ("world", "sports", "business", "technology")

WordLists = dict[str, list[str]]

_LEXICON_FILE = Path(__file__).with_name("topic_lexicon.json")
_SLOT = re.compile(r"\{(\w+)(!bare)?\}")
_ARTICLE = re.compile(r"^(?:the|an?) ", re.IGNORECASE)
_A_BEFORE_VOWEL = re.compile(r"\b([Aa]) (?=(?:[aeioAEIO]|un[^i]|8|11\b|18\b)(?!ne\b|nce\b|uro))")
_AN_BEFORE_CONSONANT = re.compile(r"\b([Aa])n (?=[bcdfgjklmnpqrstvwxyzBCDFGJKLPQTVWXYZ])")
_PLURAL_SHARE = 0.35  # of the subjects named only `{actor}`


def _money(rng: random.Random) -> str:
    if rng.random() < 0.35:
        return f"${rng.randint(1, 29)}.{rng.randint(1, 9)} billion"
    fraction = rng.choice(("", f".{rng.randint(1, 9)}"))
    return f"${rng.randint(2, 900)}{fraction} million"


def _score(rng: random.Random) -> str:
    low = rng.randint(0, 3)
    return f"{low + rng.randint(1, 3)}-{low}"


def _set_score(rng: random.Random) -> str:
    sets = ("6-0", "6-1", "6-2", "6-3", "6-4", "7-5", "7-6")
    return ", ".join(rng.choice(sets) for _ in range(2))


def _ordinal_minute(rng: random.Random) -> str:
    minute = rng.randint(4, 90)
    teen = 10 < minute < 20
    suffix = "th" if teen else {1: "st", 2: "nd", 3: "rd"}.get(minute % 10, "th")
    return f"{minute}{suffix}"


_NUMBERS: dict[str, Callable[[random.Random], str]] = {
    "n": lambda rng: str(rng.randint(11, 99)),
    "digit": lambda rng: str(rng.randint(1, 7)),
    "big": lambda rng: f"{rng.randint(1, 95)},{rng.randint(0, 9)}00",
    "points": lambda rng: str(rng.randint(18, 320)),
    "pct": lambda rng: f"{rng.randint(1, 29)}{rng.choice(('', '.1', '.3', '.5', '.8'))} percent",
    "money": _money,
    "cents": lambda rng: str(rng.randint(12, 98)),
    "price": lambda rng: f"${rng.randint(21, 89)}.{rng.randint(10, 99)}",
    "fx": lambda rng: f"1.{rng.randint(1000, 3999)}",
    "score": _score,
    "score0": lambda rng: rng.choice(("0-0", "1-1", "2-2", "3-3")),
    "bscore": lambda rng: f"{rng.randint(5, 9) * rng.choice((1, 1, 4))}-{rng.randint(0, 3)}",
    "setscore": _set_score,
    "cricket": lambda rng: f"{rng.randint(81, 460)} for {rng.randint(2, 9)}",
    "minute": _ordinal_minute,
    "gb": lambda rng: str(rng.choice((1, 2, 4, 5, 10, 20, 30, 40, 60, 80))),
    "inch": lambda rng: str(rng.choice((2, 7, 12, 14, 15, 17, 19))),
    "nm": lambda rng: str(rng.choice((45, 65, 90, 130))),
}


def load_lexicon(path: Path = _LEXICON_FILE) -> dict[str, WordLists]:
    """Read the word lists: `shared` and one group per topic, each a map from slot to entries."""
    with path.open(encoding="utf-8") as file:
        lexicon: dict[str, WordLists] = json.load(file)
    return lexicon


def _third_person(base: str) -> str:
    """Return the present tense for a singular subject: `carry on` -> `carries on`."""
    verb, space, rest = base.partition(" ")
    if verb.endswith("y") and verb[-2] not in "aeiou":
        verb = verb[:-1] + "ies"
    elif verb.endswith(("s", "x", "z", "ch", "sh", "o")):
        verb += "es"
    else:
        verb += "s"
    return verb + space + rest


def _verb_phrase(entry: str, form: str) -> str:
    """Conjugate an entry `base|past rest`; `form` is `base`, `past` or `sing`.

    The base may itself be several words; the past form is the first word after the bar.
    """
    base, _, tail = entry.partition("|")
    past, _, rest = tail.partition(" ")
    verb = {"base": base, "past": past, "sing": _third_person(base)}[form]
    return f"{verb} {rest}".strip()


def _choose(slot: str, topic: WordLists, shared: WordLists, rng: random.Random) -> str:
    """Return one raw filling of a slot, which may contain slots again."""
    if slot in _NUMBERS:
        return _NUMBERS[slot](rng)
    if slot == "actor":
        slot = "actor_p" if rng.random() < _PLURAL_SHARE else "actor_s"
    if slot.startswith("vp_"):
        return _verb_phrase(rng.choice(topic["vp"]), slot.removeprefix("vp_"))
    return rng.choice(topic.get(slot) or shared[slot])


def _fill(text: str, topic: WordLists, shared: WordLists, rng: random.Random) -> str:
    """Replace every slot, nested ones too; `!bare` drops a leading article, as headlines do."""

    def replace(match: re.Match[str]) -> str:
        filled = _fill(_choose(match[1], topic, shared, rng), topic, shared, rng)
        return _capital(_ARTICLE.sub("", filled)) if match[2] else filled

    return _SLOT.sub(replace, text)


def _capital(text: str) -> str:
    """Upper-case the first letter, past an opening quotation mark."""
    start = 1 if text.startswith('"') else 0
    return text[:start] + text[start : start + 1].upper() + text[start + 1 :]


def _tidy(text: str) -> str:
    """Repair the seams: a/an, doubled words, capitals after a dateline or opening quotation."""
    text = _A_BEFORE_VOWEL.sub(r"\1n ", text)
    text = _AN_BEFORE_CONSONANT.sub(r"\1 ", text)
    text = re.sub(r"\b(the|in|on|city) \1\b", r"\1", text, flags=re.IGNORECASE)
    text = re.sub(r"( - |, \")(\w)", lambda match: match[1] + match[2].upper(), text)
    return _capital(text)


def topical_sentences(count: int, seed: int) -> list[tuple[str, int]]:
    """Draw news-like sentences with their topic.

    Args:
        count: how many to draw; topics are balanced to within one, repeats are possible but rare.
        seed: the same seed gives the same list.

    Returns:
        Pairs (sentence, label) in random order; the label is an index into `TOPICS`.
    """
    lexicon = load_lexicon()
    shared = lexicon["shared"]
    rng = random.Random(seed)
    labels = [index % len(TOPICS) for index in range(count)]
    rng.shuffle(labels)
    rows: list[tuple[str, int]] = []
    for label in labels:
        topic = lexicon[TOPICS[label]]
        rows.append((_tidy(_fill(rng.choice(shared["patterns"]), topic, shared, rng)), label))
    return rows
