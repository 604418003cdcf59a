"""`prompt_position="end"` under a stock Trainer: accumulation, metrics, learning, resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, DataCollatorForSeq2Seq

from peft_interp import PromptCallback, Verbalizer

Build = Callable[..., Any]
Rows = list[dict[str, Any]]

END = {"prompt_position": "end"}
TEXTS = ["w20 w21", "w22 w23 w24", "w25", "w26 w27 w28 w29", "w30 w31", "w32", "w33 w34 w35", "w36"]
WHOLE = {"per_device_train_batch_size": 8}
SPLIT = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
PLAIN = {"optim": "sgd", "max_grad_norm": 0.0, "max_steps": 3}


@pytest.fixture
def tokenizer(tokenizer_dir: Path) -> Any:
    return AutoTokenizer.from_pretrained(tokenizer_dir)


@pytest.fixture
def verbalizer() -> Verbalizer:
    return Verbalizer("{text} w40 {prompt}", ["w10", "w11", "w12"])


@pytest.fixture
def rows(tokenizer: Any, verbalizer: Verbalizer) -> Rows:
    return [verbalizer.encode(tokenizer, text, i % 3) for i, text in enumerate(TEXTS)]


@pytest.fixture
def hooks(tokenizer: Any, verbalizer: Verbalizer) -> dict[str, Any]:
    """What a classification script gives to Trainer."""
    return {
        "data_collator": DataCollatorForSeq2Seq(tokenizer, padding=True),
        "compute_metrics": verbalizer.accuracy(tokenizer),
        "preprocess_logits_for_metrics": verbalizer.label_scores(tokenizer),
    }


@pytest.mark.parametrize("config", [{}, {"perplexity_weight": 0.5}, {"perplexity_weight": 0.5, "share_prefix": False}])
@pytest.mark.parametrize("task", ["CAUSAL_LM", "CAUSAL_LM/llama"])
def test_an_update_does_not_depend_on_micro_batches(
    base_for: Build, readable: Build, learner: Build, latent_of: Build, rows: Rows, hooks: Any, task: str, config: Any
) -> None:
    for i, row in enumerate(rows):  # answers of one to three tokens
        row["input_ids"], row["attention_mask"] = (
            row["input_ids"] + [50 + i] * (i % 3),
            [1] * (len(row["labels"]) + i % 3),
        )
        row["labels"] = row["labels"] + [50 + i] * (i % 3)
    after = []
    for split in (WHOLE, SPLIT):
        model = readable(base_for(task), **END, **config)
        start = latent_of(model)
        learner(model, rows, hooks, **PLAIN, **split).train()
        assert (latent_of(model) - start).norm() > 1e-3
        after.append(latent_of(model))
    torch.testing.assert_close(after[1], after[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("aligned", [True, False])
def test_accuracy_is_that_of_the_single_rows(
    gpt2: Build, readable: Build, learner: Build, tokenizer: Any, rows: Rows, hooks: Any, side: str, aligned: bool
) -> None:
    base = gpt2()
    model = readable(base, align_logits_with_labels=aligned, **END)
    words, right = [10, 11, 12], 0
    for row in rows:
        ids = torch.tensor([[*row["input_ids"][:-1], *model.prompt_token_ids()]])
        with torch.no_grad():
            logits = base(input_ids=ids).logits[0, -1, words]
        right += words[int(logits.argmax())] == row["labels"][-1]
    tokenizer.padding_side = side
    measured = learner(model, rows, hooks, per_device_eval_batch_size=3).evaluate(rows)
    assert measured["eval_accuracy"] == right / len(rows)


def test_training_improves_accuracy_and_loss(
    gpt2: Build, readable: Build, learner: Build, tokenizer: Any, verbalizer: Verbalizer, hooks: Any
) -> None:
    rows = [verbalizer.encode(tokenizer, text, 2) for text in TEXTS]
    model = readable(gpt2(), tokenizer_name_or_path=tokenizer.name_or_path, **END)
    options = {**hooks, "callbacks": [PromptCallback(tokenizer)], "eval_dataset": rows}
    evaluating = {"eval_strategy": "steps", "eval_steps": 5, "metric_for_best_model": "accuracy"}
    trainer = learner(model, rows, options, max_steps=40, **evaluating)
    before = trainer.evaluate()
    trainer.train()
    ids, best = model.best_prompt()
    after = trainer.evaluate()
    assert model.prompt_token_ids() == ids
    assert after["eval_accuracy"] == best > before["eval_accuracy"]
    assert after["eval_loss"] < before["eval_loss"]


def test_a_resumed_run_equals_an_uninterrupted_one(
    gpt2: Build, readable: Build, learner: Build, rows: Rows, hooks: Any, tmp_path: Path
) -> None:
    def run(folder: str, resume: str | None = None) -> dict[str, torch.Tensor]:
        model = readable(gpt2(), perplexity_weight=0.5, **END)
        saving = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6, "per_device_train_batch_size": 3}
        trainer = learner(model, rows, hooks, output_dir=str(tmp_path / folder), **saving)
        trainer.train(resume_from_checkpoint=resume)
        return model.prompt_encoder["default"].state_dict()

    straight = run("straight")
    resumed = run("resumed", str(tmp_path / "straight" / "checkpoint-3"))
    for name, value in straight.items():
        assert torch.equal(value.nan_to_num(), resumed[name].nan_to_num()), name
