"""`predict` and `compute_metrics` work on the rows that the trainer was given, text or encoded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from peft_interp import Verbalizer

Build = Callable[..., Any]


@pytest.fixture
def uneven(sentences: Build) -> list[dict[str, Any]]:
    """Rows of two to five words."""
    return [
        {**row, "sentence": " ".join((row["sentence"] + " w8 w9").split()[: 2 + i])}
        for i, row in enumerate(sentences(4))
    ]


def own_logits(trainer: Any, row: dict[str, list[int]]) -> torch.Tensor:
    with torch.no_grad():
        return trainer.model.eval()(input_ids=torch.tensor([row["input_ids"]])).logits[0]


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("kind", [Dataset.from_list, list])
def test_predict_gives_the_adapters_logits(
    encoded: bool, kind: Any, searcher: Build, uneven: Any, verbalizer: Verbalizer, tokenizer: Any
) -> None:
    rows = [verbalizer.encode(tokenizer, row["sentence"], row["label"]) for row in uneven]
    trainer = searcher(max_steps=1, per_device_eval_batch_size=3)
    trainer.train()
    output = trainer.predict(kind(rows if encoded else uneven))
    assert {"test_score", "test_accuracy", "test_loss", "test_prompt", "test_runtime"} <= set(output.metrics)
    assert output.metrics["test_accuracy"] == trainer.evaluate(uneven)["eval_accuracy"]
    prompt = len(trainer.model.prompt_token_ids())
    for row, labels, logits in zip(rows, output.label_ids, output.predictions, strict=True):
        assert labels[: len(row["labels"])].tolist() == row["labels"]
        expected = own_logits(trainer, row)
        assert len(expected) == prompt + len(row["input_ids"])
        np.testing.assert_allclose(logits[: len(expected)], expected, rtol=1e-3, atol=1e-4)


def test_compute_metrics_on_rows_of_text(searcher: Build, uneven: Any, verbalizer: Verbalizer, tokenizer: Any) -> None:
    stock = {
        "compute_metrics": lambda prediction: {
            f"stock_{k}": v for k, v in verbalizer.accuracy(tokenizer)(prediction).items()
        },
        "preprocess_logits_for_metrics": verbalizer.label_scores(tokenizer),
        "eval_dataset": Dataset.from_list(uneven),
    }
    trainer = searcher(options=stock, eval_strategy="steps", eval_steps=2, per_device_eval_batch_size=4)
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "eval_accuracy" in entry]
    assert len(entries) == 2
    assert all(entry["eval_stock_accuracy"] == entry["eval_accuracy"] for entry in entries)


def test_a_collator_of_ones_own_is_used(searcher: Build, uneven: Any) -> None:
    from peft_interp.scoring.examples import padded

    seen: list[int] = []

    def remember(rows: Any) -> Any:
        seen.append(len(rows))
        return padded(rows)

    trainer = searcher(options={"data_collator": remember}, per_device_eval_batch_size=2)
    trainer.predict(uneven)
    assert seen == [2, 2]


def test_rows_without_labels(searcher: Build) -> None:
    rows = [{"question": "w7"}]
    options = {"reward_funcs": lambda completions, **_: [1.0] * len(completions), "verbalizer": None}
    trainer = searcher(options={**options, "train_dataset": rows, "eval_dataset": rows})
    output = trainer.predict(rows)
    assert output.predictions is None
    assert output.metrics["test_reward"] == 1.0
    trainer.compute_metrics = lambda prediction: {}
    with pytest.raises(ValueError, match=r"`compute_metrics` needs predictions, and the data has no labels"):
        trainer.evaluate()
