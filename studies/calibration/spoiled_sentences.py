"""Sentences that people wrote, and the same with a word or more spoiled: what the grammaticality probe learns from.

No text of the evaluation is among them. A spoiled sentence is constructed, not judged; what the probe is worth is
measured on sentences that people judged.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

from studies.calibration.rated_texts import close_blanks

COUNTS = {"wikipedia": 2000, "questions": 1800, "stories": 1200}
FEWEST, MOST = 4, 30  # words
FUNCTION_WORDS = (
    ("a", "an", "the", "this", "these", "that", "those", "some", "any", "each", "every"),
    ("in", "on", "at", "of", "for", "to", "with", "from", "by", "about", "into", "over", "between"),
    ("is", "are", "was", "were", "be", "been", "being", "am"),
    ("has", "have", "had", "having", "do", "does", "did", "doing"),
    ("he", "him", "his", "she", "her", "they", "them", "their", "it", "its", "i", "me", "my", "we", "us", "our"),
    ("and", "but", "or", "because", "if", "although", "while", "that", "which", "who", "whom", "whose"),
    ("can", "could", "will", "would", "shall", "should", "may", "might", "must"),
)
_CLASS = {word: group for group in FUNCTION_WORDS for word in group}
Spoil = Callable[[list[str], random.Random, list[str]], list[str]]


def human_sentences(folder: Path, seed: int = 0) -> list[str]:
    """Sentences of WikiText-2's validation file, GSM8K's training questions, and TinyStories; none is evaluated on."""
    wiki = (folder / "wikitext2_valid.txt").read_text(encoding="utf-8")
    lines = [line.strip() for line in re.sub(r" @([-,.])@ ", r"\1", wiki).split("\n")]
    questions = (folder / "gsm8k_train.jsonl").read_text(encoding="utf-8").splitlines()
    stories = (folder / "tinystories_5k.jsonl").read_text(encoding="utf-8").splitlines()[:2500]
    texts = {
        "wikipedia": [close_blanks(line) for line in lines if len(line) > 200 and "<unk>" not in line],
        "questions": [json.loads(line)["question"] for line in questions],
        "stories": [next(iter(json.loads(line).values())) for line in stories],
    }
    found: list[str] = []
    for name, count in COUNTS.items():
        pieces = dict.fromkeys(p.strip() for text in texts[name] for p in re.split(r"(?<=[.!?])\s+", text))
        fit = [p for p in pieces if FEWEST <= len(p.split()) <= MOST and p[:1].isalpha() and p.isascii()]
        found += random.Random(seed).sample(fit, min(count, len(fit)))
    return found


def pairs(sentences: list[str], seed: int = 0, shuffled: float = 0.1) -> list[tuple[str, str]]:
    """Each sentence, sometimes in lower case, without its end or cut short, and the same spoiled.

    Args:
        sentences: that people wrote.
        seed: another one gives other pairs of the same sentences.
        shuffled: share of the pairs in which all words are shuffled.
    """
    rng = random.Random(seed)
    words = [word.strip('.,;:!?"()').lower() for text in sentences for word in text.split()]
    found = []
    for text in sentences:
        kept = text.split()
        if len(kept) > 6 and rng.random() < 0.25:
            kept = kept[: rng.randint(5, len(kept) - 1)]
        kept[-1] = kept[-1].rstrip(".") if rng.random() < 0.3 else kept[-1]
        if rng.random() < 0.4:
            kept = [word.lower() for word in kept]
        spoiled = kept
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5))):
            spoiled = rng.choice(SPOILS)(spoiled, rng, words) if len(spoiled) > 2 else spoiled
        if rng.random() < shuffled:
            spoiled = rng.sample(kept, len(kept))
        if spoiled != kept:
            found.append((" ".join(kept), " ".join(spoiled)))
    return found


def _swap(words: list[str], rng: random.Random, others: list[str]) -> list[str]:
    i = rng.randrange(len(words) - 1)
    return [*words[:i], words[i + 1], words[i], *words[i + 2 :]]


def _move(words: list[str], rng: random.Random, others: list[str]) -> list[str]:
    i = rng.randrange(len(words))
    rest = [*words[:i], *words[i + 1 :]]
    j = rng.randrange(len(rest) + 1)
    return [*rest[:j], words[i], *rest[j:]]


def _drop(words: list[str], rng: random.Random, others: list[str]) -> list[str]:
    small = [i for i, word in enumerate(words) if word.lower() in _CLASS]
    i = rng.choice(small) if small and rng.random() < 0.6 else rng.randrange(len(words))
    return [*words[:i], *words[i + 1 :]]


def _twice(words: list[str], rng: random.Random, others: list[str]) -> list[str]:
    i = rng.randrange(len(words))
    return [*words[: i + 1], *words[i:]]


def _replace(words: list[str], rng: random.Random, others: list[str]) -> list[str]:
    i = rng.randrange(len(words))
    return [*words[:i], rng.choice(others), *words[i + 1 :]]


def _insert(words: list[str], rng: random.Random, others: list[str]) -> list[str]:
    i = rng.randrange(len(words) + 1)
    return [*words[:i], rng.choice(others), *words[i:]]


def _wrong_function_word(words: list[str], rng: random.Random, others: list[str]) -> list[str]:
    small = [i for i, word in enumerate(words) if word.lower() in _CLASS]
    if not small:
        return _drop(words, rng, others)
    i = rng.choice(small)
    wrong = rng.choice([word for word in _CLASS[words[i].lower()] if word != words[i].lower()])
    return [*words[:i], wrong, *words[i + 1 :]]


def _wrong_ending(words: list[str], rng: random.Random, others: list[str]) -> list[str]:
    """-s, -ed or -ing added or taken away."""
    long = [i for i, word in enumerate(words) if len(word) > 3 and word.isalpha()]
    if not long:
        return _swap(words, rng, others)
    i = rng.choice(long)
    stem = re.sub(r"(ing|ed|s)$", "", words[i])
    wrong = rng.choice([form for form in (stem, f"{stem}s", f"{stem}ed", f"{stem}ing") if form != words[i]])
    return [*words[:i], wrong, *words[i + 1 :]]


def _shuffle_some(words: list[str], rng: random.Random, others: list[str]) -> list[str]:
    size = min(len(words), rng.randint(3, 6))
    start = rng.randrange(len(words) - size + 1)
    return [*words[:start], *rng.sample(words[start : start + size], size), *words[start + size :]]


def _broken_word(words: list[str], rng: random.Random, others: list[str]) -> list[str]:
    long = [i for i, word in enumerate(words) if len(word) > 5]
    if not long:
        return _replace(words, rng, others)
    i = rng.choice(long)
    return [*words[:i], words[i][: rng.randint(2, len(words[i]) - 2)], *words[i + 1 :]]


SPOILS: tuple[Spoil, ...] = (
    _swap,
    _move,
    _drop,
    _twice,
    _replace,
    _insert,
    _wrong_function_word,
    _wrong_function_word,
    _wrong_ending,
    _wrong_ending,
    _shuffle_some,
    _broken_word,
)
