"""Readers for sentences that people have rated, and for human text the models were not trained on."""

import csv
import json
import random
import re
import statistics
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Rated:
    """Sentences with ratings.

    Attributes:
        name: of the data set.
        texts: sentences.
        ratings: mean human rating of each on the data set's own scale; 0 or 1 for CoLA.
        targets: the same from 0 to 1.
    """

    name: str
    texts: list[str]
    ratings: list[float]
    targets: list[float]


def rated_sets(folder: Path) -> list[Rated]:
    """Acceptability (1 to 4), naturalness (1 to 6, averaged by sentence), CoLA's two dev files (0 or 1)."""
    with (folder / "acceptability.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    accepted = [float(row["mean-ratings"]) for row in rows]
    with (folder / "nlg_naturalness.csv").open(encoding="utf-8") as file:
        judged: dict[str, list[float]] = {}
        for row in csv.DictReader(file):
            judged.setdefault(row["sys_ref"], []).append(float(row["naturalness"]))
    natural = [statistics.mean(ratings) for ratings in judged.values()]
    lines = [
        line.split("\t")
        for name in ("in_domain_dev", "out_of_domain_dev")
        for line in (folder / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    ]
    grammatical = [float(line[1]) for line in lines]
    return [
        Rated("acceptability", [row["sentence"] for row in rows], accepted, [(r - 1) / 3 for r in accepted]),
        Rated("naturalness", list(judged), natural, [(r - 1) / 5 for r in natural]),
        Rated("cola", [line[3] for line in lines], grammatical, grammatical),
    ]


def unseen_sentences(folder: Path, count: int, seed: int = 0) -> list[str]:
    """Human sentences that the embedded model was not trained on: WikiText-2 and GSM8K test files, 5 to 30 words."""
    wiki = (folder / "wikitext2_test.txt").read_text(encoding="utf-8")
    lines = [
        line.strip() for line in wiki.replace(" @-@ ", "-").replace(" @,@ ", ",").replace(" @.@ ", ".").split("\n")
    ]
    texts = [close_blanks(line) for line in lines if len(line) > 200 and "<unk>" not in line]
    questions = (folder / "gsm8k_test.jsonl").read_text(encoding="utf-8").splitlines()
    pools = [_sentences(texts), _sentences([json.loads(line)["question"] for line in questions])]
    return [text for pool in pools for text in random.Random(seed).sample(pool, min(len(pool), count // 2))]


def close_blanks(text: str) -> str:
    """Undo the blanks that tokenised corpora put before marks."""
    return re.sub(r"(\() ", r"\1", re.sub(r" ([.,;:!?)]|n't|'s|'re|'ve|'ll|'d|'m)(?=\W|$)", r"\1", text))


def _sentences(texts: list[str]) -> list[str]:
    pieces = [piece for text in texts for piece in re.split(r"(?<=[.!?])\s+", text)]
    return [piece for piece in dict.fromkeys(pieces) if 5 <= len(piece.split()) <= 30 and piece[0].isupper()]
