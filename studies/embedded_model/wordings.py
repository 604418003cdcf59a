"""Grammars that write what can stand in front of a text: tasks, moods, and lists of words.

`wordings.json` holds them. Each is a map from a slot to its alternatives; an alternative may hold further slots in
braces, and the slots of `shared` are open to the task grammars. `expand` draws one wording. The wordings of
`evaluation_prompts` are kept out of every draw, so that what is measured on them is not recall of a training line.
"""

import json
import random
import re
from pathlib import Path

from studies.embedded_model.evaluation_prompts import HELD_OUT_WORDINGS

Grammar = dict[str, list[str]]

_FILE: dict[str, Grammar] = json.loads(Path(__file__).with_name("wordings.json").read_text(encoding="utf-8"))
_SLOT = re.compile(r"\{(\w+)\}")

SENTIMENT = _FILE["shared"] | _FILE["sentiment"]
TOPIC = _FILE["shared"] | _FILE["topic"]
KIND = _FILE["shared"] | _FILE["kind"]
GUSH = _FILE["gush"]
COMPLAINT = _FILE["complaint"]


def normalise(wording: str) -> str:
    """Lower case, letters and single blanks only: the form in which two wordings count as the same."""
    return " ".join(re.findall(r"[a-z]+", wording.lower()))


_HELD_OUT = frozenset(normalise(wording) for wording in HELD_OUT_WORDINGS)


def expand(grammar: Grammar, rng: random.Random) -> str:
    """Draw one wording from the `top` slot, in varied case and punctuation, never one that is held out."""
    while True:
        text = "{top}"
        while "{" in text:
            text = _SLOT.sub(lambda slot: rng.choice(grammar[slot[1]]), text, count=1)
        if normalise(text) not in _HELD_OUT:
            return vary(text, rng)


def vary(wording: str, rng: random.Random) -> str:
    """Start with a capital as a rule; now and then all in lower case, or without the last mark, or with another one."""
    draw = rng.random()
    wording = wording.lower() if draw < 0.12 else wording[:1].upper() + wording[1:]
    if rng.random() < 0.2:
        wording = wording.rstrip(".:?!") + rng.choice(("", "", ":", ".", "!", "..."))
    return wording


def task_words(grammar: Grammar) -> frozenset[str]:
    """The words of a grammar that name its task: longer ones that are no everyday words."""
    options = [option for slot, options in grammar.items() if slot not in _FILE["shared"] for option in options]
    words = {word for option in options for word in re.findall(r"[a-z]+", _SLOT.sub(" ", option).lower())}
    return frozenset(word for word in words if len(word) > 3) - frozenset(_FILE["everyday"]["words"])
