"""What is watched while the model trains: dev accuracy (never test) after the evaluation prompts."""

from pathlib import Path

from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from studies.embedded_model.evaluation_prompts import (
    SENTIMENT_HELD_OUT,
    SENTIMENT_PROMPTS,
    TOPIC_HELD_OUT,
    TOPIC_PROMPTS,
)
from studies.embedded_model.frames import SENTIMENT_LABELS, TOPIC_LABELS
from studies.embedded_model.probe import accuracy
from studies.embedded_model.rows import PACKAGE_DATA, Labelled, read_jsonl, read_tsv


def monitor_accuracy(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, data_dir: Path) -> dict[str, float]:
    """Accuracy per prompt on 218 rows of SST dev (lower case) and the package's validation rows."""
    model.eval()
    reviews = [(text.lower(), label) for text, label in read_tsv(data_dir / "sst2_full" / "sst2_dev.tsv")[::4]]
    own = read_jsonl(PACKAGE_DATA / "sentiment" / "validation.jsonl")
    news = read_jsonl(PACKAGE_DATA / "topic" / "validation.jsonl")
    found: dict[str, float] = {}
    sentiment = ["", *[prompt for prompt, _ in SENTIMENT_PROMPTS], *SENTIMENT_HELD_OUT]
    topic = ["", *[prompt for prompt, _ in TOPIC_PROMPTS], *TOPIC_HELD_OUT]
    cases: list[tuple[str, list[str], Labelled, tuple[str, ...]]] = [
        ("review", sentiment, reviews, SENTIMENT_LABELS),
        ("own", sentiment[:11], own, SENTIMENT_LABELS),
        ("news", topic, news, TOPIC_LABELS),
    ]
    for name, prompts, rows, labels in cases:
        for prompt in prompts:
            found[f"{name}: {prompt}"] = round(accuracy(model, tokenizer, prompt, rows, labels), 4)
    model.train()
    return found
