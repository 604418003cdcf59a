"""Nothing is lost: an interrupted run ends where an uninterrupted one does, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, PromptTuningConfig, get_peft_model
from transformers import Trainer

from peft_interp import PromptCallback, continue_training

Build = Callable[..., Any]

# The term sets in at step 3 and rises until step 9, on both sides of the interruption at step 6
SCHEDULE = {"perplexity_weight": 0.5, "perplexity_start_step": 3, "perplexity_warmup_steps": 6}
# 12 rows in batches of 3: the interruption is in the middle of the second epoch
ARGUMENTS: dict[str, Any] = {
    **{"max_steps": 12, "per_device_train_batch_size": 3, "lr_scheduler_type": "linear"},
    **{"save_strategy": "steps", "save_steps": 6, "eval_strategy": "steps", "eval_steps": 2},
}
TIMES = ("runtime", "per_second")


@pytest.fixture
def new_run(gpt2: Build, readable: Build, learner: Build, rows_for: Build, tmp_path: Path) -> Build:
    """`new_run(folder, dropout, **arguments)`: model and Trainer as a new process would make them."""

    def build(folder: str, dropout: float = 0.0, **arguments: Any) -> Trainer:
        rates = dict.fromkeys(("attn_pdrop", "resid_pdrop", "embd_pdrop"), dropout)
        rows = rows_for("CAUSAL_LM", 12)
        options = {"callbacks": [PromptCallback()], "eval_dataset": rows[:4]}
        settings = {**ARGUMENTS, "output_dir": str(tmp_path / folder), **arguments}
        return learner(readable(gpt2(**rates), **SCHEDULE), rows, options, **settings)

    return build


def comparable(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Log entries without times; the last one's mean loss and speed only cover the session."""
    return [{k: v for k, v in entry.items() if not any(t in k for t in TIMES)} for entry in history[:-1]]


def tensors(state: Any) -> list[torch.Tensor]:
    return [value for values in state["state"].values() for value in values.values()]


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_resumed_run_equals_an_uninterrupted_one(dropout: float, new_run: Build, tmp_path: Path) -> None:
    straight, resumed = new_run("straight", dropout), new_run("resumed", dropout)
    straight.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-6"))
    ours, theirs = (t.model.prompt_encoder["default"].state_dict() for t in (straight, resumed))
    assert set(ours) == {"latent", "ids", "best_ids", "best_score", "step", "weight"}
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
    assert ours["best_score"].isfinite()
    for first, second in zip(
        tensors(straight.optimizer.state_dict()), tensors(resumed.optimizer.state_dict()), strict=True
    ):
        assert torch.equal(first, second)
    assert comparable(straight.state.log_history) == comparable(resumed.state.log_history)
    assert {entry["prompt/perplexity_weight"] for entry in straight.state.log_history} >= {0.0, 0.5}


def test_the_interrupted_half_really_has_to_be_restored(new_run: Build, latent_of: Build) -> None:
    """The comparison above could not pass by accident: without the checkpoint's latent the run ends elsewhere."""
    straight, afresh = new_run("straight"), new_run("afresh", max_steps=6)
    straight.train()
    afresh.train()
    assert not torch.equal(latent_of(straight.model), latent_of(afresh.model))


def test_checkpoint_reloads_for_inference_as_it_was(
    new_run: Build, gpt2: Build, rows_for: Build, tmp_path: Path
) -> None:
    trainer = new_run("run", save_steps=12)
    trainer.args.set_evaluate(strategy="no")
    trainer.train()
    model = trainer.model.eval()
    reloaded = PeftModel.from_pretrained(gpt2(), tmp_path / "run" / "checkpoint-12")
    ids = torch.stack([row["input_ids"] for row in rows_for("CAUSAL_LM")])
    assert reloaded.prompt_token_ids() == model.prompt_token_ids()
    assert torch.equal(reloaded(input_ids=ids).logits, model(input_ids=ids).logits)


def test_the_best_model_comes_back(new_run: Build, gpt2: Build) -> None:
    """Latent and ids of the best checkpoint, not of the last step."""
    trainer = new_run("run", save_steps=1, eval_steps=1, load_best_model_at_end=True, learning_rate=1.0)
    trainer.train()
    losses = {e["step"]: e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e}
    best = min(losses, key=lambda step: losses[step])
    assert best < 12
    assert trainer.state.best_model_checkpoint.endswith(f"checkpoint-{best}")
    kept, _ = trainer.model.best_prompt()
    assert trainer.model.prompt_token_ids() == kept
    saved = continue_training(gpt2(), trainer.state.best_model_checkpoint)
    encoders = [m.prompt_encoder["default"].state_dict() for m in (trainer.model, saved)]
    assert all(torch.equal(encoders[0][name], encoders[1][name]) for name in encoders[0])
    assert trainer.evaluate()["eval_loss"] == pytest.approx(losses[best], abs=1e-6)


def test_continue_training_in_one_call(
    new_run: Build, gpt2: Build, learner: Build, rows_for: Build, latent_of: Build, tmp_path: Path
) -> None:
    first = new_run("run")
    first.train()
    first.model.save_pretrained(tmp_path / "saved")
    state = {k: v.clone() for k, v in first.model.prompt_encoder["default"].state_dict().items()}
    again = continue_training(gpt2(), str(tmp_path / "saved"))
    assert again.training
    assert all(torch.equal(v, state[k]) for k, v in again.prompt_encoder["default"].state_dict().items())
    assert [name for name, p in again.named_parameters() if p.requires_grad] == ["prompt_encoder.default.latent"]
    learner(again, rows_for("CAUSAL_LM"), max_steps=3).train()
    assert not torch.equal(latent_of(again), state["latent"])
    assert again.prompt_statistics()["step"] == int(state["step"]) + 3


def test_continue_training_refuses_other_adapters(gpt2: Build, tmp_path: Path) -> None:
    get_peft_model(gpt2(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="not an InterpPrompt one"):
        continue_training(gpt2(), str(tmp_path))


@pytest.mark.parametrize("every", [None, 1, 3])
@pytest.mark.parametrize("shown", [True, False])
def test_steps_are_counted_whatever_evaluates_in_between(shown: bool, every: int | None, new_run: Build) -> None:
    """The perplexity schedule counts optimizer steps; an evaluation that sees a step's latent must not swallow it."""
    evaluating = {"eval_strategy": "no"} if every is None else {"eval_steps": every}
    trainer = new_run("run", save_strategy="no", **evaluating)
    if not shown:  # with the callback, logging sees every latent before the evaluation does
        trainer.remove_callback(PromptCallback)
    trainer.train()
    if shown:
        weights = {e["step"]: e["prompt/perplexity_weight"] for e in trainer.state.log_history if "loss" in e}
        schedule = trainer.model.peft_config["default"].perplexity_weight_at
        assert weights == {step: schedule(step) for step in range(1, 13)}
    assert trainer.model.prompt_statistics()["step"] == 12


def test_trainer_state_stays_json(new_run: Build, tmp_path: Path) -> None:
    new_run("run").train()
    state = json.loads((tmp_path / "run" / "checkpoint-12" / "trainer_state.json").read_text())
    assert state["log_history"][0]["prompt/step"] == 1.0
