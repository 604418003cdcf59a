"""How good a language model it is: bits per byte, agreement with human ratings, readable against random prompts."""

import math
import random
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from studies.calibration.rated_texts import rated_sets


@torch.no_grad()
def token_nll(model: PreTrainedModel, ids: Sequence[int]) -> list[float]:
    """Negative log-likelihood in nats of every token but the first."""
    row = torch.tensor([ids])
    logits = model(input_ids=row).logits[0, :-1]
    return [float(x) for x in nn.functional.cross_entropy(logits.float(), row[0, 1:], reduction="none")]


def bits_per_byte(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, window: int = 256) -> float:
    """Bits per UTF-8 byte, read in windows that overlap by half; only the second half of each window counts."""
    ids = tokenizer(text)["input_ids"]
    total = sum(token_nll(model, ids[:window]))
    for start in range(window // 2, len(ids) - window // 2, window // 2):
        part = ids[start : start + window]
        total += sum(token_nll(model, part)[window // 2 - 1 :])
    return total / math.log(2) / len(text.encode())


def unigram_nll(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> list[float]:
    """Per token id, its NLL under add-one smoothed counts in `texts`."""
    counts = Counter(token for ids in tokenizer(list(texts))["input_ids"] for token in ids)
    totals = torch.tensor([counts[i] + 1.0 for i in range(len(tokenizer))])
    return [float(x) for x in -(totals / totals.sum()).log()]


def started(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids after a start token, so that the first word is scored too: the tokenizer's own, else the end mark."""
    ids = list(tokenizer(text)["input_ids"])
    return ids if ids[0] == tokenizer.bos_token_id else [tokenizer.eos_token_id, *ids]


def sentence_scores(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sentences: Sequence[str], unigram: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Mean log-probability per token, and SLOR (the same less the unigram mean, Pauls & Klein 2012)."""
    means, slors = [], []
    for sentence in sentences:
        ids = started(tokenizer, sentence)
        mean = -statistics.mean(token_nll(model, ids))
        means.append(mean)
        slors.append(mean + statistics.mean(unigram[i] for i in ids[1:]))
    return means, slors


def measure_ratings(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, unigram: Sequence[float]
) -> dict[str, dict[str, float]]:
    """Spearman's rank correlation with mean human ratings; for CoLA the area under the ROC curve."""
    found: dict[str, dict[str, float]] = {}
    for rated in rated_sets(folder):
        ratings, is_cola = rated.ratings, rated.name == "cola"
        means, slors = sentence_scores(model, tokenizer, rated.texts, unigram)
        if is_cola:
            pair = (roc_auc_score(ratings, means), roc_auc_score(ratings, slors))
        else:
            pair = (spearmanr(ratings, means).statistic, spearmanr(ratings, slors).statistic)
        found["cola_auc" if is_cola else rated.name] = {
            "rows": len(ratings),
            "mean_log_prob": round(float(pair[0]), 3),
            "slor": round(float(pair[1]), 3),
        }
    return found


def readable_against_random(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, readable: Sequence[str], seed: int = 0
) -> dict[str, float]:
    """Mean NLL per token, in nats, of readable prompts, of their words shuffled, and of as many random tokens."""
    rng = random.Random(seed)
    ordinary = [i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids]
    nll: dict[str, list[float]] = {"readable": [], "shuffled_words": [], "random_tokens": []}
    for text in readable:
        ids = tokenizer(text)["input_ids"]
        words = text.split()
        rng.shuffle(words)
        nll["readable"] += token_nll(model, ids)
        nll["shuffled_words"] += token_nll(model, tokenizer(" ".join(words))["input_ids"])
        nll["random_tokens"] += token_nll(model, rng.choices(ordinary, k=len(ids)))
    return {name: round(statistics.mean(values), 2) for name, values in nll.items()}
