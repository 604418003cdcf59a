"""Unreadable prompts made from readable ones: normal sentences hold none of the faults of a trained prompt.

These are constructed, not collected: what a rate on them says is how the measures deal with such faults, not how often
trained prompts have them.
"""

import random
from collections.abc import Callable
from typing import Any

from peft_interp.text.token_filter import allowed_tokens

LENGTHS = (5, 8, 12, 20)
Make = Callable[[list[int], random.Random], list[int]]


def makers(model: Any, tokenizer: Any, texts: list[str]) -> dict[str, Make]:
    """By kind of fault, a function from a readable prompt's ids to an unreadable prompt of the same length."""
    table = model.get_input_embeddings().weight
    anything = allowed_tokens(table, tokenizer, "printable").nonzero().flatten().tolist()
    words = allowed_tokens(table, tokenizer, "words").nonzero().flatten().tolist()
    used = sorted({i for ids in tokenizer(texts, add_special_tokens=False)["input_ids"] for i in ids} & set(words))
    return {
        "shuffled": lambda ids, rng: _really_shuffled(ids, rng),
        "random tokens": lambda ids, rng: rng.choices(anything, k=len(ids)),
        "random words": lambda ids, rng: rng.choices(words, k=len(ids)),
        "words of prompts": lambda ids, rng: rng.choices(used, k=len(ids)),
        "half replaced": lambda ids, rng: [rng.choice(words) if rng.random() < 0.5 else i for i in ids],
        "few words repeated": lambda ids, rng: rng.choices(rng.sample(used, max(2, len(ids) // 3)), k=len(ids)),
    }


def _really_shuffled(ids: list[int], rng: random.Random) -> list[int]:
    for _ in range(10):
        mixed = rng.sample(ids, len(ids))
        if sum(a == b for a, b in zip(mixed, ids, strict=True)) <= len(ids) / 3:
            break
    return mixed


def cut(ids: list[int], rng: random.Random) -> list[int]:
    """The prompt's first tokens, a length drawn from `LENGTHS` or all of it."""
    return ids[: rng.choice((*LENGTHS, len(ids)))]
