"""Measure the embedded model and write `results.json`: language, human ratings, and what prompts do to it.

python -m studies.embedded_model.evaluate_model                      # the shipped model
python -m studies.embedded_model.evaluate_model --model_dir runs/x --output runs/x/results.json
"""

import argparse
import json
import random
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerBase

from studies.embedded_model.evaluation_prompts import (
    HELD_OUT_WORDINGS,
    SENTIMENT_HELD_OUT,
    SENTIMENT_PROMPTS,
    TOPIC_HELD_OUT,
    TOPIC_PROMPTS,
)
from studies.embedded_model.frames import SENTIMENT_LABELS, SENTIMENT_TASK, TOPIC_LABELS
from studies.embedded_model.measure_prompts import TaskRows, measure_task, measure_words
from studies.embedded_model.measure_text import bits_per_byte, measure_ratings, readable_against_random, unigram_nll
from studies.embedded_model.reserved import reserved_reviews
from studies.embedded_model.rows import PACKAGE_DATA, Labelled, read_jsonl, read_tsv
from studies.embedded_model.sources import load_sources, plain_wiki

REPOSITORY = Path(__file__).parents[2]
SEEDS = (100, 13, 21, 42, 87)
WIKITEXT_BYTES = 200_000
PARTS = ("language", "sst2", "own_sentiment", "own_topic", "agnews", "task_words")


def parse_arguments() -> argparse.Namespace:
    """Command line of the evaluation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--model_dir", type=Path, default=REPOSITORY / "peft_interp" / "embedded" / "model")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--random_rows", type=int, default=100, help="test rows for the 200 random prompts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="what to measure, in this order")
    return parser.parse_args()


def load(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model in fp32 and evaluation mode, and its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def few_shot(folder: Path) -> dict[str, Labelled]:
    """The five shared splits of 16 rows per class."""
    return {f"16 per class, split {seed}": read_tsv(folder / f"16-{seed}" / "train.tsv") for seed in SEEDS}


def beginnings(rows: Labelled) -> Labelled:
    """The first 300 characters of each text, so that prompt and text fit in 256 positions."""
    return [(text[:300], label) for text, label in rows]


def tasks(data_dir: Path) -> dict[str, TaskRows]:
    """The four classification tests."""
    shots = data_dir / "fewshot16"
    reserved = [(text.lower(), label) for text, label in reserved_reviews(data_dir)]
    own = {
        name: {split: read_jsonl(PACKAGE_DATA / name / f"{split}.jsonl") for split in ("train", "test")}
        for name in ("sentiment", "topic")
    }
    sentiment = (SENTIMENT_LABELS, SENTIMENT_PROMPTS, SENTIMENT_HELD_OUT)
    topic = (TOPIC_LABELS, TOPIC_PROMPTS, TOPIC_HELD_OUT)
    news = {name: beginnings(rows) for name, rows in few_shot(shots / "agnews").items()}
    tested = beginnings(random.Random(0).sample(read_tsv(shots / "agnews" / "test.tsv"), 500))
    return {
        "sst2": TaskRows(*sentiment, reserved, few_shot(shots / "sst-2"), read_tsv(shots / "sst-2" / "test.tsv")),
        "own_sentiment": TaskRows(*sentiment, own["sentiment"]["train"], {}, own["sentiment"]["test"]),
        "own_topic": TaskRows(*topic, own["topic"]["train"], {}, own["topic"]["test"]),
        "agnews": TaskRows(
            *topic, [row for rows in news.values() for row in rows], {k: news[k] for k in list(news)[:1]}, tested
        ),
    }


def measure_language(data_dir: Path, model_dir: Path) -> dict[str, object]:
    """Language figures of the model, and of the two tiny story models beside it."""
    sources = load_sources(data_dir, seed=0)
    text = plain_wiki((data_dir / "text" / "wikitext2_test.txt").read_text(encoding="utf-8")[:WIKITEXT_BYTES])
    general = [piece for texts in sources.running.values() for piece in texts[::5]]
    readable = [wording for wording in dict.fromkeys(HELD_OUT_WORDINGS) if len(wording.split()) > 3]
    found: dict[str, object] = {}
    tiny = data_dir / "models"
    for name, folder in (
        ("embedded", model_dir),
        ("stories260K", tiny / "stories260K"),
        ("llama2xs_281K", tiny / "llama2xs_281K"),
    ):
        model, tokenizer = load(folder)
        unigram = unigram_nll(tokenizer, general)
        found[name] = {
            "parameters": sum(p.numel() for p in model.parameters()),
            "bits_per_byte": round(bits_per_byte(model, tokenizer, text), 3),
            "ratings": measure_ratings(model, tokenizer, data_dir / "human_ratings", unigram),
            "prompt_nll": readable_against_random(model, tokenizer, readable),
        }
    return found


def main() -> None:
    """Measure and write."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model_dir)
    model = GPT2LMHeadModel.from_pretrained(arguments.model_dir, dtype=torch.float32).eval()
    measured = tasks(arguments.data_dir)
    output: Path = arguments.output
    for part in arguments.parts:
        if part == "language":
            found = measure_language(arguments.data_dir, arguments.model_dir)
        elif part == "task_words":
            found = measure_words(model, tokenizer, measured["sst2"], sorted(SENTIMENT_TASK.words))
        else:
            found = measure_task(model, tokenizer, measured[part], arguments.random_rows)
        print(part, json.dumps(found, indent=1), flush=True)
        results = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {}
        output.write_text(json.dumps(results | {part: found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
