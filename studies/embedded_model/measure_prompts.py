"""What prompts do to the model's accuracy on one classification task."""

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase

from studies.embedded_model.frames import FRAME
from studies.embedded_model.probe import accuracy, label_ids, label_log_probs
from studies.embedded_model.soft_prompt import soft_accuracy, train_soft_prompt

Rows = list[tuple[str, int]]


@dataclass(frozen=True)
class TaskRows:
    """A task to measure: its label words, hand-written prompts (text, kind), held-out wordings and rows.

    Attributes:
        tuning: rows a prompt may be trained or chosen on.
        few: further training sets by name, for few-shot soft prompts.
        test: rows that are reported on.
    """

    labels: Sequence[str]
    written: Sequence[tuple[str, str]]
    held_out: Sequence[str]
    tuning: Rows
    few: dict[str, Rows]
    test: Rows


def measure_task(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, task: TaskRows, random_rows: int
) -> dict[str, object]:
    """All accuracies of a task on its test rows (per cent), random prompts on `random_rows` of them."""

    def test_accuracy(prompt: str) -> float:
        return percent(accuracy(model, tokenizer, prompt, task.test, task.labels))

    found: dict[str, object] = {"rows": len(task.test), "empty": test_accuracy("")}
    found["written"] = [{"prompt": p, "kind": kind, "accuracy": test_accuracy(p)} for p, kind in task.written]
    found["held_out"] = [{"prompt": p, "accuracy": test_accuracy(p)} for p in task.held_out]
    found["random"] = measure_random(model, tokenizer, task, random_rows)
    sets = {f"{len(task.tuning)} rows": task.tuning, **task.few}
    found["soft"] = [measure_soft(model, tokenizer, task, name, rows) for name, rows in sets.items()]
    return found


def measure_words(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, task: TaskRows, words: Sequence[str]
) -> dict[str, object]:
    """Is the effect spread over many words? Each word alone as the prompt, on 100 tuning rows."""
    rows = random.Random(0).sample(task.tuning, 100)
    empty = percent(accuracy(model, tokenizer, "", rows, task.labels))
    single = {word: percent(accuracy(model, tokenizer, word, rows, task.labels)) for word in words}
    best = sorted(single.items(), key=lambda item: -item[1])
    helped = sum(value >= empty + 5 for value in single.values())
    return {"empty": empty, "words": len(words), "at_least_5_points_above_empty": helped, "best": dict(best[:20])}


def percent(share: float) -> float:
    """A share as per cent with one decimal."""
    return round(100 * share, 1)


def measure_soft(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, task: TaskRows, name: str, rows: Rows
) -> dict[str, object]:
    """Train a 10-vector soft prompt on `rows` and report its test accuracy."""
    steps, batch_size = (300, 32) if len(rows) > 200 else (100, 16)
    prompt = train_soft_prompt(model, tokenizer, rows, task.labels, steps=steps, batch_size=batch_size)
    return {"trained_on": name, "accuracy": percent(soft_accuracy(model, tokenizer, prompt, task.test, task.labels))}


def measure_random(
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskRows,
    row_count: int,
    count: int = 200,
    length: int = 10,
    choose_rows: int = 32,
    seed: int = 0,
) -> dict[str, object]:
    """Accuracy of prompts of random token ids: mean and sd, and of the one that is best on tuning rows."""
    rng = random.Random(seed)
    words = label_ids(tokenizer, task.labels)
    ordinary = [i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids]
    choosing = rng.sample(task.tuning, min(choose_rows, len(task.tuning)))
    rows = rng.sample(task.test, min(row_count, len(task.test)))

    def score(prompt: list[int], on: Rows) -> float:
        ids = [[*prompt, *text] for text in tokenizer([f" {text}{FRAME}" for text, _ in on])["input_ids"]]
        best = label_log_probs(model, ids, words, tokenizer.pad_token_id).argmax(-1)
        return percent(float((best == torch.tensor([label for _, label in on])).float().mean()))

    prompts = [rng.choices(ordinary, k=length) for _ in range(count)]
    test = [score(prompt, rows) for prompt in prompts]
    chosen = [score(prompt, choosing) for prompt in prompts]
    best = prompts[max(range(count), key=chosen.__getitem__)]
    return {
        "count": count,
        "length": length,
        "rows": len(rows),
        "mean": round(statistics.mean(test), 1),
        "sd": round(statistics.stdev(test), 1),
        "largest": max(test),
        "smallest": min(test),
        "best_on_train": {"text": tokenizer.decode(best), "accuracy": score(best, task.test)},
    }
