"""One `compute_metrics` measures our adapter, stock prompt tuning and the bare base model alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoTokenizer, DataCollatorForSeq2Seq

from peft_interp import PromptCallback, Verbalizer

Build = Callable[..., Any]
Rows = list[dict[str, Any]]

TEXTS = ["w20 w21", "w22 w23 w24", "w25", "w26 w27 w28 w29", "w30 w31", "w32", "w33 w34 w35", "w36"]


@pytest.fixture
def tokenizer(tokenizer_dir: Path) -> Any:
    return AutoTokenizer.from_pretrained(tokenizer_dir)


@pytest.fixture
def verbalizer() -> Verbalizer:
    return Verbalizer("{prompt} {text} w40", ["w10", "w11", "w12"])


@pytest.fixture
def rows(tokenizer: Any, verbalizer: Verbalizer) -> Rows:
    return [verbalizer.encode(tokenizer, text, i % 3) for i, text in enumerate(TEXTS)]


def by_hand(score: Callable[[list[int]], torch.Tensor], rows: Rows) -> float:
    """Accuracy row by row: `score(ids)` gives the logits after `ids`, which end before the label."""
    words = [10, 11, 12]
    right = 0
    for row in rows:
        logits = score(row["input_ids"][:-1])[words]
        right += words[int(logits.argmax())] == row["labels"][-1]
    return right / len(rows)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["ours", "ours, aligned", "stock", "base"])
def test_accuracy_is_that_of_the_single_rows(
    kind: str,
    side: str,
    gpt2: Build,
    readable: Build,
    with_prompt: Build,
    learner: Build,
    tokenizer: Any,
    verbalizer: Verbalizer,
    rows: Rows,
) -> None:
    if (kind, side) == ("stock", "left"):
        pytest.skip("stock prompt tuning miscounts positions under left padding (peft #1093)")
    base = gpt2()
    model = {
        "ours": lambda: readable(base),
        "ours, aligned": lambda: readable(base, align_logits_with_labels=True),
        "stock": lambda: with_prompt(base),
        "base": lambda: base,
    }[kind]()
    tokenizer.padding_side = side
    options = {
        "data_collator": DataCollatorForSeq2Seq(tokenizer, padding=True),
        "compute_metrics": verbalizer.accuracy(tokenizer),
        "preprocess_logits_for_metrics": verbalizer.label_scores(tokenizer),
    }
    measured = learner(model, rows, options, per_device_eval_batch_size=3).evaluate(rows)["eval_accuracy"]

    def score(ids: list[int]) -> torch.Tensor:
        if isinstance(model, PeftModel) and kind != "stock":  # by the promise that the text is the prompt
            ids, reader = [ids[0], *model.prompt_token_ids(), *ids[1:]], base
        else:
            reader = model
        with torch.no_grad():
            return reader(input_ids=torch.tensor([ids])).logits[0, -1]

    assert measured == by_hand(score, rows)


def test_training_improves_the_accuracy(
    gpt2: Build, readable: Build, learner: Build, tokenizer: Any, verbalizer: Verbalizer
) -> None:
    """The whole loop of a user: verbalizer, Trainer, metric, best prompt."""
    rows = [verbalizer.encode(tokenizer, text, 2) for text in TEXTS]
    options = {
        "data_collator": DataCollatorForSeq2Seq(tokenizer, padding=True),
        "compute_metrics": verbalizer.accuracy(tokenizer),
        "preprocess_logits_for_metrics": verbalizer.label_scores(tokenizer),
        "callbacks": [PromptCallback(tokenizer)],
        "eval_dataset": rows,
    }
    model = readable(gpt2(), tokenizer_name_or_path=tokenizer.name_or_path)
    evaluating = {"eval_strategy": "steps", "eval_steps": 5, "metric_for_best_model": "accuracy"}
    trainer = learner(model, rows, options, max_steps=40, **evaluating)
    before = trainer.evaluate()["eval_accuracy"]
    trainer.train()
    ids, best = model.best_prompt()
    assert best > before
    assert model.prompt_token_ids() == ids
    assert trainer.evaluate()["eval_accuracy"] == best
