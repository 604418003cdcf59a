"""The texts that a judge of readability is fitted and checked on: rated by people, written by people, and spoiled."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.calibration.choose_prompts import read_human_prompts
from studies.calibration.rated_texts import rated_sets, unseen_sentences
from studies.calibration.spoiled_sentences import FUNCTION_WORDS, human_sentences, pairs

CUTS = (4, 6, 9, 15)  # words
UNSEEN, CONSTRUCTED = 600, 400
SHUFFLED_SHARES = (0.1,)  # of the probe's spoiled sentences, by round
FITTED = ("acceptability", "naturalness")
HUMAN = ("cut prompts", "unseen sentences", "cut sentences")
SHUFFLED = ("shuffled words", "shuffled tokens")
NAMED = {  # the texts that the product was wrong about, and what is right
    "the of and to in a is that": False,
    "view recommending magazine praised magazine pra": False,
    "Let's think step by step.": True,
    "Is this film review positive or negative?": True,
    "Classify the news article as world, sports, business or technology.": True,
}


@dataclass(frozen=True)
class TextSet:
    """Texts of one kind.

    Attributes:
        texts: of it.
        targets: how readable each is, 0 to 1.
        groups: a number for each; texts made from one another share it, and stay in one fold.
        ratings: what people gave on the data set's own scale; None where nobody was asked.
        weight: of the whole kind in the fit; 0 where it is only measured.
    """

    texts: list[str]
    targets: list[float]
    groups: list[int]
    ratings: list[float] | None = None
    weight: float = 0.0


def text_sets(data_dir: Path, tokenizer: Any, seed: int = 0) -> dict[str, TextSet]:
    """All kinds by name, in a fixed order.

    Args:
        data_dir: the shared data.
        tokenizer: the judge's, for tokens shuffled.
        seed: of the cuts and of what is constructed.
    """
    rng = random.Random(seed)
    found = {
        rated.name: TextSet(
            rated.texts, rated.targets, list(range(len(rated.texts))), rated.ratings, float(rated.name in FITTED)
        )
        for rated in rated_sets(data_dir / "human_ratings")
    }
    prompts = [t for texts in read_human_prompts(data_dir / "human_prompts").values() for t in dict.fromkeys(texts)]
    sentences = unseen_sentences(data_dir / "text", UNSEEN)
    written = {
        "whole prompts": (prompts, 0.0),
        "cut prompts": ([_cut(text, rng) for text in prompts], 1.0),
        "unseen sentences": (sentences, 0.5),
        "cut sentences": ([_cut(text, rng) for text in sentences], 0.5),
    }
    for name, (texts, weight) in written.items():
        found[name] = TextSet(texts, [1.0] * len(texts), list(range(len(texts))), None, weight)
    bases = [(i, text) for i, text in enumerate(found["cut prompts"].texts) if len(text.split()) > 2]
    chosen = rng.sample(bases, min(CONSTRUCTED, len(bases)))
    every = sorted({word for _, text in bases for word in text.split()})
    for name, (make, weight) in _makers(every, tokenizer).items():
        source = bases if name in SHUFFLED else chosen
        texts = [make(text, rng) for _, text in source]
        found[name] = TextSet(texts, [0.0] * len(texts), [i for i, _ in source], None, weight)
    return found


def probe_pairs(data_dir: Path) -> list[list[tuple[str, str]]]:
    """Sentences and the same spoiled, for the probe, in rounds; none of them is in `text_sets`."""
    sentences = human_sentences(data_dir / "text")
    return [pairs(sentences, seed, shuffled) for seed, shuffled in enumerate(SHUFFLED_SHARES)]


def _cut(text: str, rng: random.Random) -> str:
    words = text.split()
    return " ".join(words[: rng.choice((*CUTS, len(words)))])


def _makers(words: Sequence[str], tokenizer: Any) -> dict[str, tuple[Callable[[str, random.Random], str], float]]:
    """By kind of fault a function from a readable text to an unreadable one of its length, and the kind's weight."""
    small = [word for group in FUNCTION_WORDS for word in group]

    def shuffled_tokens(text: str, rng: random.Random) -> str:
        return str(tokenizer.decode(_mixed(tokenizer.encode(text, add_special_tokens=False), rng)))

    def half_replaced(text: str, rng: random.Random) -> str:
        return " ".join(rng.choice(words) if rng.random() < 0.5 else word for word in text.split())

    def few_repeated(text: str, rng: random.Random) -> str:
        own = text.split()
        return " ".join(rng.choices(rng.sample(words, max(2, len(own) // 3)), k=len(own)))

    def broken(text: str, rng: random.Random) -> str:
        drawn = rng.choices(words, k=len(text.split()))
        return " ".join(word[: rng.randint(1, max(1, len(word) - 1))] for word in drawn)

    def stuttering(text: str, rng: random.Random) -> str:
        own = text.split()
        i = rng.randrange(len(own))
        return " ".join([*own[:i], *[own[i]] * rng.randint(2, 3), *own[i + 1 :]])

    return {
        "shuffled words": (lambda text, rng: " ".join(_mixed(text.split(), rng)), 0.8),
        "shuffled tokens": (shuffled_tokens, 0.3),
        "half replaced": (half_replaced, 0.3),
        "function words": (lambda text, rng: " ".join(rng.choices(small, k=len(text.split()))), 0.2),
        "words of prompts": (lambda text, rng: " ".join(rng.choices(words, k=len(text.split()))), 0.1),
        "broken words": (broken, 0.1),
        "few words repeated": (few_repeated, 0.1),
        "a word repeated": (stuttering, 0.1),
    }


def _mixed(items: list[Any], rng: random.Random) -> list[Any]:
    """Shuffled until few stand where they stood."""
    for _ in range(10):
        mixed = rng.sample(items, len(items))
        if sum(a == b for a, b in zip(mixed, items, strict=True)) <= len(items) / 3:
            break
    return mixed
