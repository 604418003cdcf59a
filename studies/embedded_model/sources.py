"""Readers for the training texts: `train`/`valid` files and generated news only.

MR is never used (it overlaps SST), nor are the package's own data sets: rows that a prompt is tuned on should be new to
the model, as 1,000 reserved SST rows are.
"""

import csv
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

from studies.embedded_model.reserved import reserved_reviews, without_reserved
from studies.embedded_model.rows import Labelled, read_tsv
from studies.embedded_model.topics import topical_sentences

KINDS = ("review", "news", "story", "maths", "history")


@dataclass(frozen=True)
class Sources:
    """All texts the training documents are made of.

    Attributes:
        running: by source name, long texts without a label.
        sentences: unlabelled single sentences, used as neutral prompts.
        phrases: SST training phrases with sentiment (1 positive).
        reviews: whole review sentences of SST train with sentiment, less the reserved ones.
        topical: news-like sentences with an index into `topics.TOPICS`.
        real_news: the few-shot AG News training rows, with the same index.
        kinds: single sentences with an index into `KINDS`.
    """

    running: dict[str, list[str]]
    sentences: list[str]
    phrases: Labelled
    reviews: Labelled
    topical: Labelled
    real_news: Labelled
    kinds: Labelled


def load_sources(data_dir: Path, seed: int, topical_count: int = 40_000) -> Sources:
    """Read everything under `data_dir` that is trained on, and generate the news."""
    text = data_dir / "text"
    running = {
        "stories": [json.loads(line)["text"] for line in _lines(text / "tinystories_5k.jsonl")],
        "encyclopaedia": _wiki_paragraphs(text / "wikitext2_valid.txt"),
        "maths": [_worked(json.loads(line)) for line in _lines(text / "gsm8k_train.jsonl")],
        "films": [json.loads(line)["text"] for line in _lines(text / "movie_reviews.jsonl")],
        "prompts": _human_prompts(data_dir / "human_prompts"),
    }
    sst = data_dir / "sst2_full"
    reserved = reserved_reviews(data_dir)
    rng = random.Random(seed)
    reviews = without_reserved(read_tsv(sst / "sst2_train.tsv"), reserved)
    topical = topical_sentences(topical_count, seed)
    pools = {name: _short_sentences(texts, rng) for name, texts in running.items() if name != "films"}
    by_kind = [
        [text for text, _ in reviews],
        [text for text, _ in topical[:6000]],
        pools["stories"],
        pools["maths"],
        pools["encyclopaedia"],
    ]
    return Sources(
        running=running,
        sentences=[sentence for pool in pools.values() for sentence in pool],
        phrases=without_reserved(read_tsv(sst / "sst2_phrases_train.tsv"), reserved),
        reviews=reviews,
        topical=topical,
        real_news=_agnews_train(data_dir / "fewshot16"),
        kinds=[(text, kind) for kind, texts in enumerate(by_kind) for text in rng.choices(texts, k=4000)],
    )


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _agnews_train(folder: Path) -> Labelled:
    """The few-shot AG News training rows of all seeds, less those that occur in any dev or test file."""
    news = folder / "agnews"
    kept_out = {text for path in [*news.glob("*/dev.tsv"), news / "test.tsv"] for text, _ in read_tsv(path)}
    rows = {row for path in sorted(news.glob("*/train.tsv")) for row in read_tsv(path)}
    return sorted(row for row in rows if row[0] not in kept_out)


def detokenise(text: str) -> str:
    """Close the blanks that treebank tokenisation put before marks and contractions."""
    text = re.sub(r" ([.,;:!?)])", r"\1", text)
    return re.sub(r" (n't|'s|'re|'ve|'ll|'d|'m)\b", r"\1", text)


def plain_wiki(text: str) -> str:
    """Undo wikitext's number marks and leave out its `<unk>`."""
    return text.replace(" @-@ ", "-").replace(" @,@ ", ",").replace(" @.@ ", ".").replace("<unk> ", "")


def _wiki_paragraphs(path: Path) -> list[str]:
    paragraphs = [line.strip() for line in plain_wiki(path.read_text(encoding="utf-8")).split("\n")]
    return [line for line in paragraphs if len(line) > 200]


def _worked(row: dict[str, str]) -> str:
    answer = re.sub(r"<<.*?>>", "", row["answer"]).replace("####", "The answer is")
    return f"{row['question']}\n{answer}."


def _human_prompts(folder: Path) -> list[str]:
    with (folder / "awesome_prompts.csv").open(encoding="utf-8") as file:
        texts = [row["prompt"] for row in csv.DictReader(file)]
    for name in ("self_instruct_seed_tasks.jsonl", "user_oriented_instructions.jsonl"):
        for row in map(json.loads, _lines(folder / name)):
            first = row["instances"][0]
            texts.append(row["instruction"])
            texts.append(f"{row['instruction']}\n{first['input']}\n{first['output']}"[:800])
    for path in sorted((folder / "instruction_induction").glob("*.json")):
        texts += json.loads(path.read_text(encoding="utf-8"))["annotations"]
    return texts


def _short_sentences(texts: list[str], rng: random.Random) -> list[str]:
    """At most 6,000 single sentences of 3 to 18 words."""
    sentences = [piece for text in texts for piece in re.split(r"(?<=[.!?])\s+", text)]
    sentences = [piece for piece in sentences if 3 <= len(piece.split()) <= 18]
    return rng.sample(sentences, min(len(sentences), 6000))
