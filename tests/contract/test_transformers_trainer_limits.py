"""What stock Trainer cannot do with prompt learning, and what its users see of the prompt."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import EvalPrediction, Trainer, TrainingArguments

Build = Callable[..., Any]
Rows = list[dict[str, Any]]


@pytest.fixture
def rows(token_ids: Build) -> Rows:
    return [{"input_ids": row, "labels": row} for row in token_ids(8, 6)]


def shifted_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None) -> torch.Tensor:
    """The usual `compute_loss_func`: logits and labels are taken to have one length."""
    logits = outputs.logits[:, :-1].flatten(0, 1)
    return torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten())


def test_compute_loss_signature() -> None:
    """Promise: our trainer overrides this method, with these names and defaults."""
    parameters = inspect.signature(Trainer.compute_loss).parameters
    assert list(parameters) == [*("self", "model", "inputs", "return_outputs", "num_items_in_batch")]
    assert parameters["return_outputs"].default is False
    assert parameters["num_items_in_batch"].default is None
    trainer = inspect.signature(Trainer.__init__).parameters
    assert "processing_class" in trainer
    assert "tokenizer" not in trainer


def test_reporting_is_off_by_default(tmp_path: Any) -> None:
    """Promise: our arguments keep the default `report_to` of TrainingArguments: nothing."""
    assert TrainingArguments(output_dir=str(tmp_path), use_cpu=True).report_to == []


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("gpt2", AttributeError, "has no attribute 'model'"),
        ("llama", RuntimeError, "must match the size"),
    ],
)
def test_label_smoothing_crashes(
    name: str,
    error: type[Exception],
    message: str,
    with_prompt: Build,
    make_trainer: Build,
    rows: Rows,
    request: pytest.FixtureRequest,
) -> None:
    """Promise: `label_smoothing_factor` works with ours or is refused in words."""
    model = with_prompt(request.getfixturevalue(name)())
    trainer = make_trainer(model, rows, label_smoothing_factor=0.1)
    with pytest.raises(error, match=message):
        trainer.train()


def test_compute_loss_func_crashes(gpt2: Build, with_prompt: Build, make_trainer: Build, rows: Rows) -> None:
    """Promise: `compute_loss_func` sees logits as long as the labels, or is refused in words."""
    options = {"compute_loss_func": shifted_loss}
    trainer = make_trainer(with_prompt(gpt2()), rows, trainer_options=options)
    with pytest.raises(ValueError, match="Expected input batch_size"):
        trainer.train()


def test_neftune_needs_a_base_with_an_inner_model(
    gpt2: Build, llama: Build, with_prompt: Build, make_trainer: Build, rows: Rows
) -> None:
    """Promise: `neftune_noise_alpha` is refused in words; stock fails or works by layout."""
    with pytest.raises(AttributeError, match="has no attribute 'model'"):
        make_trainer(with_prompt(gpt2()), rows, neftune_noise_alpha=5.0).train()
    result = make_trainer(with_prompt(llama()), rows, neftune_noise_alpha=5.0).train()
    assert result.global_step == 1


def test_metrics_see_prompt_columns(gpt2: Build, with_prompt: Build, make_trainer: Build, rows: Rows) -> None:
    """Promise: our docs say how `compute_metrics` aligns: logits (n, prompt + length, vocab)."""
    shapes: list[tuple[int, ...]] = []

    def measure(prediction: EvalPrediction) -> dict[str, float]:
        shapes.extend([prediction.predictions.shape, prediction.label_ids.shape])
        return {}

    options = {"compute_metrics": measure, "eval_dataset": rows}
    make_trainer(with_prompt(gpt2()), rows, trainer_options=options).evaluate()
    assert shapes == [(8, 10, 64), (8, 6)]


def test_columns_are_kept_by_the_base_models_signature(
    gpt2: Build, with_prompt: Build, make_trainer: Build, token_ids: Build
) -> None:
    """Promise: our trainer overrides `_set_signature_columns_if_needed` to keep reward columns."""
    trainer = make_trainer(with_prompt(gpt2()), [])
    trainer._set_signature_columns_if_needed()
    base_columns = set(inspect.signature(trainer.model.get_base_model().forward).parameters)
    assert set(trainer._signature_columns) == base_columns | {"label", "label_ids", "labels"}
    assert trainer.label_names == ["labels"]
    assert trainer.can_return_loss is False


def test_prediction_step_returns_loss_logits_labels(
    gpt2: Build, with_prompt: Build, make_trainer: Build, rows: Rows
) -> None:
    """Promise: our trainer's `prediction_step` may return (loss, None, None)."""
    trainer = make_trainer(with_prompt(gpt2()), rows)
    inputs = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    loss, logits, labels = trainer.prediction_step(trainer.model, inputs, True)
    assert loss.ndim == 0
    assert logits is None
    assert labels is None
