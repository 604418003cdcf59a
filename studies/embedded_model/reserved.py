"""SST training sentences that the model never sees, so that prompts can be tuned on rows it has not learnt by heart."""

import random
from collections.abc import Iterator
from pathlib import Path

from studies.embedded_model.rows import Labelled, read_tsv

COUNT = 1000
SHORT = 6  # phrases of fewer words are shared by many sentences and stay in training


def reserved_reviews(data_dir: Path) -> Labelled:
    """1,000 SST train rows: those of the shared few-shot splits (train and dev), filled up at random."""
    rows = read_tsv(data_dir / "sst2_full" / "sst2_train.tsv")
    few = {key(text) for path in (data_dir / "fewshot16" / "sst-2").glob("*/*.tsv") for text, _ in read_tsv(path)}
    first = [row for row in rows if key(row[0]) in few]
    others = [row for row in rows if key(row[0]) not in few]
    return (first + random.Random(0).sample(others, COUNT - len(first)))[:COUNT]


def without_reserved(rows: Labelled, reserved: Labelled) -> Labelled:
    """The rows that neither are nor, at `SHORT` words or more, are part of a reserved sentence."""
    held = {piece for text, _ in reserved for piece in _pieces(key(text).split())}
    return [row for row in rows if key(row[0]) not in held]


def _pieces(words: list[str]) -> Iterator[str]:
    """The whole, and every run of `SHORT` words or more."""
    yield " ".join(words)
    for start in range(len(words)):
        for end in range(start + SHORT, len(words) + 1):
            yield " ".join(words[start:end])


def key(text: str) -> str:
    """Letters and digits only, in lower case: the form in which two sentences count as the same."""
    kept = "".join(c if c.isalnum() else " " for c in text.lower())
    return " ".join(kept.split())
