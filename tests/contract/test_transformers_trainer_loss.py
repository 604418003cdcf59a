"""How Trainer scales a loss over accumulated batches, and which losses survive that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import GPT2ForSequenceClassification, Trainer

Build = Callable[..., Any]
Rows = list[dict[str, Any]]


@pytest.fixture
def rows(token_ids: Build) -> Rows:
    """Eight rows of six tokens; the first token carries no label."""
    ids = token_ids(8, 6)
    labels = ids.clone()
    labels[:, 0] = -100
    return [{"input_ids": row, "labels": label} for row, label in zip(ids, labels, strict=True)]


WHOLE: dict[str, Any] = {"per_device_train_batch_size": 8}
SPLIT: dict[str, Any] = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}


def add_to_loss(model: PeftModel) -> PeftModel:
    """Add the sum of the prompt's weights, whose gradient is 1 everywhere, to the loss."""

    def add(module: PeftModel, args: Any, output: Any) -> Any:
        output["loss"] = output["loss"] + module.prompt_encoder["default"].embedding.weight.sum()
        return output

    model.register_forward_hook(add)
    return model


class OwnLossTrainer(Trainer):
    """The simplest override there is: the mean over this micro-batch."""

    def compute_loss(
        self,
        model: PeftModel,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        outputs = model(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss


class ScaledTrainer(OwnLossTrainer):
    loss_is_scaled_for_ga = False


def test_causal_loss_does_not_depend_on_accumulation(
    gpt2: Build, with_prompt: Build, first_gradient: Build, rows: Rows
) -> None:
    """Promise: 8 x 1 equals 2 x 4 for ours, as it does for stock CAUSAL_LM."""
    whole = first_gradient(with_prompt(gpt2()), rows, **WHOLE)
    split = first_gradient(with_prompt(gpt2()), rows, **SPLIT)
    torch.testing.assert_close(split, whole, rtol=1e-4, atol=1e-6)


def test_forward_receives_the_number_of_labels(
    gpt2: Build, with_prompt: Build, make_trainer: Build, rows: Rows
) -> None:
    """Promise: our term finds its share of the update: labels here / `num_items_in_batch`."""
    model = with_prompt(gpt2())
    counts: list[float] = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: counts.append(float(kwargs["num_items_in_batch"])),
        with_kwargs=True,
    )
    make_trainer(model, rows, **SPLIT).train()
    assert counts == [40.0] * 4


def test_evaluation_passes_the_number_of_labels_too(
    gpt2: Build, with_prompt: Build, make_trainer: Build, rows: Rows
) -> None:
    """Promise: in evaluation our loss is the task loss; `num_items_in_batch` arrives there too."""
    model = with_prompt(gpt2())
    counts: list[float] = []
    trainer = make_trainer(model, rows, per_device_eval_batch_size=4)
    model.register_forward_pre_hook(
        lambda module, args, kwargs: counts.append(float(kwargs["num_items_in_batch"])),
        with_kwargs=True,
    )
    trainer.evaluate(rows)
    assert counts == [20.0] * 2


def test_added_term_is_multiplied_by_accumulation_steps(
    gpt2: Build, with_prompt: Build, first_gradient: Build, rows: Rows
) -> None:
    """Promise: we scale our own term; added plainly it counts once per micro-batch."""
    for options, factor in ((WHOLE, 1.0), (SPLIT, 4.0)):
        task = first_gradient(with_prompt(gpt2()), rows, **options)
        both = first_gradient(add_to_loss(with_prompt(gpt2())), rows, **options)
        torch.testing.assert_close(both - task, torch.full((4, 32), factor), rtol=1e-3, atol=1e-3)


def classifier(build: Build, with_prompt: Build) -> PeftModel:
    return with_prompt(build(GPT2ForSequenceClassification, num_labels=2), "SEQ_CLS")


def test_heads_that_ignore_the_count_grow_with_accumulation(
    gpt2: Build, t5: Build, with_prompt: Build, first_gradient: Build, token_ids: Build
) -> None:
    """Promise: for SEQ_CLS and T5 our term grows as the task loss does: stock is 4x at 4 steps."""
    ids = token_ids(8, 6)
    labelled = [{"input_ids": row, "labels": i % 2} for i, row in enumerate(ids)]
    translated = [{"input_ids": row, "labels": row} for row in ids]
    cases: list[tuple[Callable[[], PeftModel], Rows]] = [
        (lambda: classifier(gpt2, with_prompt), labelled),
        (lambda: with_prompt(t5(), "SEQ_2_SEQ_LM"), translated),
    ]
    for build, data in cases:
        whole = first_gradient(build(), data, **WHOLE)
        split = first_gradient(build(), data, **SPLIT)
        torch.testing.assert_close(split, 4 * whole, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("name", "factor"), [("gpt2", 1.0), ("llama", 6 / 5)])
def test_first_label_is_predicted_but_not_counted(
    name: str,
    factor: float,
    with_prompt: Build,
    first_gradient: Build,
    token_ids: Build,
    request: pytest.FixtureRequest,
) -> None:
    """Promise: ours divides by what it predicts; Llama-like stock is too large by L/(L-1)."""
    build = request.getfixturevalue(name)
    ids = token_ids(8, 6)
    data = [{"input_ids": row, "labels": row} for row in ids]
    by_trainer = first_gradient(with_prompt(build()), data, **WHOLE)
    alone = with_prompt(build()).train()
    alone(input_ids=ids, labels=ids).loss.backward()
    by_mean = alone.prompt_encoder["default"].embedding.weight.grad
    torch.testing.assert_close(by_trainer, factor * by_mean, rtol=1e-3, atol=1e-6)


def test_first_label_is_left_out_by_the_loss_type(
    gpt2: Build, llama: Build, t5: Build, with_prompt: Build, make_trainer: Build
) -> None:
    """Promise: `loss_type == "ForCausalLM"` tells us how Trainer counted; GPT-2 has none."""
    for model, loss_type, shifts in (
        (with_prompt(gpt2()), None, False),
        (with_prompt(llama()), "ForCausalLM", True),
        (with_prompt(t5(), "SEQ_2_SEQ_LM"), "ForConditionalGeneration", False),
    ):
        trainer = make_trainer(model, [])
        assert model.get_base_model().loss_type == loss_type
        assert trainer._loss_shifts_labels is shifts
        assert trainer.model_accepts_loss_kwargs is True


def test_own_mean_loss_needs_loss_is_scaled_for_ga(
    gpt2: Build, with_prompt: Build, first_gradient: Build, rows: Rows
) -> None:
    """Promise: RLPromptTrainer sets `loss_is_scaled_for_ga = False`, or its loss grows 4x."""
    assert Trainer.loss_is_scaled_for_ga is None
    whole = first_gradient(with_prompt(gpt2()), rows, trainer_class=OwnLossTrainer, **WHOLE)
    for trainer_class, factor in ((OwnLossTrainer, 4.0), (ScaledTrainer, 1.0)):
        split = first_gradient(with_prompt(gpt2()), rows, trainer_class=trainer_class, **SPLIT)
        torch.testing.assert_close(split, factor * whole, rtol=1e-3, atol=1e-6)
