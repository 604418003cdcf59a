"""What a person might write for a task: instructions put together from parts."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

_VERBS = ("classify", "label", "sort", "categorize", "tag")
_ENDS = ("", "", "", " Answer with one word.", " Do not explain.", " Name nothing else.")
_PATTERNS = (
    "{Verb} the {thing} by its {ask}.{end}",
    "{Verb} this {thing} as {classes}.{end}",
    "Is the {ask} of this {thing} {classes}?{end}",
    "What is the {ask} of this {thing}?{end}",
    "Tell me the {ask} of the {thing}.{end}",
    "Read the {thing} and name its {ask}.{end}",
    "You are a {person}. {Verb} each {thing} by {ask}.{end}",
    "I want you to act as a {person} and name the {ask} of each {thing}.{end}",
    "Decide which {ask} the {thing} has: {classes}.{end}",
    "The {ask} of a {thing} is {classes}.{end}",
    "Here is a {thing}. Say whether its {ask} is {classes}.{end}",
    "As a {person}, {verb} the {thing}: {classes}.{end}",
    "Choose {classes} for this {thing}.{end}",
    "Below is a {thing}; its {ask} follows.",
    "A {thing} and its {ask}, {classes}:",
    "{Thing} and {ask}:",
    "{Ask} ({classes}) of the {thing}:",
    "What would a {person} say of the {ask} of this {thing}?{end}",
)


@dataclass(frozen=True)
class Words:
    """A task's own words.

    Attributes:
        things: what a row is.
        asks: what is asked of it.
        classes: ways to name the answers.
        people: who would know.
    """

    things: tuple[str, ...]
    asks: tuple[str, ...]
    classes: tuple[str, ...]
    people: tuple[str, ...]


_FILMS = Words(
    ("film review", "movie review", "sentence about a film", "comment", "opinion", "review"),
    ("sentiment", "tone", "verdict", "opinion", "mood"),
    ("positive or negative", "good or bad", "great or terrible", "favourable or unfavourable", "praise or criticism"),
    ("film critic", "cinema owner", "careful reader", "movie fan"),
)
WORDS = {
    "sst-2": _FILMS,
    "sst-2-named": _FILMS,
    "agnews": Words(
        ("news article", "news story", "report", "headline", "article", "piece of news"),
        ("topic", "subject", "section", "category", "theme"),
        (
            "world, sports, business or technology",
            "world news, sports, business or technology",
            "politics, sports, business or science",
            "one of world, sports, business, technology",
        ),
        ("news editor", "librarian", "journalist", "careful reader"),
    ),
}


def instructions(words: Words, seed: int = 0) -> Iterator[str]:
    """Different instructions (some thousand), in a drawn order that does not change with how many are taken."""
    rng, seen = random.Random(seed), set[str]()
    while True:
        verb, thing, ask = rng.choice(_VERBS), rng.choice(words.things), rng.choice(words.asks)
        parts = {"verb": verb, "thing": thing, "ask": ask, "end": rng.choice(_ENDS)}
        capitals = {name.capitalize(): parts[name].capitalize() for name in ("verb", "thing", "ask")}
        parts |= {"classes": rng.choice(words.classes), "person": rng.choice(words.people)}
        text = rng.choice(_PATTERNS).format(**parts, **capitals)
        if text not in seen:
            seen.add(text)
            yield text
