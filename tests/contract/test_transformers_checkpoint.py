"""What a Trainer checkpoint of a prompt-learning model holds, and how it is resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel

Build = Callable[..., Any]
Rows = list[dict[str, Any]]


@pytest.fixture
def rows(token_ids: Build) -> Rows:
    return [{"input_ids": row, "labels": row} for row in token_ids(16, 6)]


def test_checkpoint_holds_the_adapter_and_the_training_state(
    gpt2: Build, with_prompt: Build, make_trainer: Build, rows: Rows, tmp_path: Path
) -> None:
    """Promise: no base weights on disk; a latent in our state dict is all that must be added."""
    make_trainer(with_prompt(gpt2()), rows, save_strategy="steps", save_steps=1).train()
    assert {path.name for path in (tmp_path / "checkpoint-1").iterdir()} == {
        *("adapter_config.json", "adapter_model.safetensors", "README.md"),
        *("optimizer.pt", "scheduler.pt", "rng_state.pth"),
        *("trainer_state.json", "training_args.bin"),
    }


def test_resumed_training_equals_an_uninterrupted_one(
    gpt2: Build, with_prompt: Build, make_trainer: Build, rows: Rows, tmp_path: Path
) -> None:
    """Promise: nothing is lost on resume; stock reaches the same prompt bit for bit."""
    settings = {"optim": "adamw_torch", "learning_rate": 0.1, "per_device_train_batch_size": 2}
    straight = with_prompt(gpt2())
    saving = {"save_strategy": "steps", "save_steps": 2}
    make_trainer(straight, rows, max_steps=4, **settings, **saving).train()
    resumed = with_prompt(gpt2())
    trainer = make_trainer(resumed, rows, max_steps=4, **settings)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert trainer.state.global_step == 4
    assert torch.equal(resumed.get_prompt(1), straight.get_prompt(1))


def test_resuming_loads_into_the_existing_adapter(
    gpt2: Build,
    with_prompt: Build,
    make_trainer: Build,
    rows: Rows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Promise: our `_load_adapter_state_dict` is all that resume calls for the adapter."""
    make_trainer(with_prompt(gpt2()), rows, save_strategy="steps", save_steps=1).train()
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    stock = PeftModel.load_adapter

    def record(self: PeftModel, *args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return stock(self, *args, **kwargs)

    monkeypatch.setattr(PeftModel, "load_adapter", record)
    checkpoint = str(tmp_path / "checkpoint-1")
    trainer = make_trainer(with_prompt(gpt2()), rows, max_steps=2)
    trainer.train(resume_from_checkpoint=checkpoint)
    assert calls == [((checkpoint, "default"), {"is_trainable": True})]


def test_best_model_comes_back_through_load_adapter(
    gpt2: Build, with_prompt: Build, make_trainer: Build, rows: Rows, tmp_path: Path
) -> None:
    """Promise: `load_best_model_at_end` needs nothing of ours beyond the state-dict hooks."""
    model = with_prompt(gpt2())
    each_step = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps"}
    best = {"eval_steps": 1, "load_best_model_at_end": True, "learning_rate": 1e4}
    options = {"eval_dataset": rows}
    trainer = make_trainer(model, rows, trainer_options=options, max_steps=2, **each_step, **best)
    trainer.train()
    path = Path(trainer.state.best_model_checkpoint)
    saved = PeftModel.from_pretrained(gpt2(), path)
    assert path.parent == tmp_path
    assert torch.equal(model.get_prompt(1), saved.get_prompt(1))


def test_trainer_card_overwrites_tags(
    gpt2: Build, with_prompt: Build, make_trainer: Build, rows: Rows, tmp_path: Path
) -> None:
    """Promise: our tags go through `model.add_model_tags`; tags given to Trainer are lost."""
    base = gpt2()
    base.add_model_tags(["kept"])
    trainer = make_trainer(with_prompt(base), rows)
    trainer.save_model()
    trainer.create_model_card(tags=["lost"])
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.library_name == "peft"
    assert "kept" in data.tags
    assert "lost" not in data.tags
