"""What a prompt does, shown and not told: the rows' last words, and rows, with the answers that the prompt gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import takewhile
from random import Random

from peft_interp.explain.target import Target
from peft_interp.search.instruct_moves import demonstration
from peft_interp.text.token_filter import LINE_END
from peft_interp.text.tokenization import decode

Shown = tuple[str, str]  # what the model is asked about, and the answer

_SEPARATORS = (" ", LINE_END, ". ")
_MOST_ANSWERS = 6  # different ones of a text
_TIMES = (4, 3, 2, 1)  # that the answers are gone through
_DRAWN = 2  # texts of each kind


def shown_answers(target: Target) -> list[Shown]:
    """Each row's text behind the prompt's place, and the answer that the prompt finds likeliest.

    An answer of several tokens is what is likeliest at each of them, after the row's own ones before it.
    """
    tokenizer, found = target.setup.tokenizer, []
    likeliest = target.prompt.argmax(-1).split([len(places) for places in target.places])
    for row, places, ids in zip(target.rows, target.places, likeliest, strict=True):
        run = next((n for n, place in enumerate(places) if place != places[0] + n), len(places))
        asked = decode(tokenizer, row.ids[row.start : places[0]])
        found.append((asked, decode(tokenizer, ids[:run].tolist()).strip()))
    return [(asked, answer) for asked, answer in found if answer]


def demonstrations(examples: Sequence[Shown], rng: Random) -> Iterator[str]:
    """Few-shot texts: first only the words that all rows end with, before each answer in turn; then rows in full.

    Args:
        examples: rows and the prompt's answers to them.
        rng: draws the order.
    """
    if not examples:
        return
    answers = [answer for answer, _ in Counter(answer for _, answer in examples).most_common(_MOST_ANSWERS)]
    ending = common_ending([asked for asked, _ in examples])
    for times in _TIMES:
        for separator in _SEPARATORS:
            for _ in range(_DRAWN):
                order = rng.sample(answers, len(answers))
                yield "".join(f"{ending} {answer}".lstrip() + separator for answer in order * times)
    for each in _TIMES:
        for _ in range(_DRAWN):
            yield demonstration(examples, each, rng)


def common_ending(texts: Sequence[str]) -> str:
    """The words that all of some texts end with; "" where there are none."""
    columns = zip(*(reversed(text.split()) for text in texts), strict=False)  # the last words, those before them, ...
    same = takewhile(lambda column: len(set(column)) == 1, columns)
    return " ".join(reversed([column[0] for column in same]))
