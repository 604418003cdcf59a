"""Two processes (gloo, CPU) end with the same prompt as one process with the same global batch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

from peft_interp import PromptCallback
from tests.builders import bert, gpt2, readable
from tests.two_processes import on_two_processes

TASKS = ("CAUSAL_LM", "SEQ_CLS")


def train(folder: str, task: str, batch: int) -> tuple[int, dict[str, torch.Tensor]]:
    """Latent, ids, step and best prompt after three steps of eight rows with two to five labels."""
    model: Any = readable(gpt2() if task == "CAUSAL_LM" else bert(), task, perplexity_weight=0.5)
    if task == "SEQ_CLS":
        model.set_perplexity_model(gpt2())
    ids = torch.randint(3, 64, (8, 6), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    for i in range(8):
        labels[i, : 1 + i % 4] = -100
    if task == "SEQ_CLS":
        labels = ids[:, 0] % 2
    rows: Any = [{"input_ids": ids[i], "labels": labels[i]} for i in range(8)]
    plain: dict[str, Any] = {
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "save_strategy": "no",
    }
    args = TrainingArguments(
        folder,
        max_steps=3,
        learning_rate=0.1,
        per_device_train_batch_size=batch,
        per_device_eval_batch_size=batch,
        eval_strategy="steps",
        eval_steps=1,
        use_cpu=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        logging_steps=1,
        report_to=[],
        ddp_backend="gloo" if "WORLD_SIZE" in os.environ else None,
        **plain,
    )
    callback = PromptCallback(restore_best=False)
    trainer = Trainer(model=model, args=args, train_dataset=rows, eval_dataset=rows, callbacks=[callback])
    trainer.train()
    return trainer.args.world_size, {k: v.clone() for k, v in model.prompt_encoder["default"].state_dict().items()}


def train_all(folder: str) -> dict[str, tuple[int, dict[str, torch.Tensor]]]:
    return {task: train(folder, task, 4) for task in TASKS}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What both ranks hold in the end; started once, as starting takes most of the time."""
    folder = tmp_path_factory.mktemp("ddp")
    return on_two_processes(folder, train_all, str(folder / "run"))


@pytest.mark.filterwarnings("ignore:after 3 steps the prompt is the one training began with")  # of a classifier: it is
@pytest.mark.parametrize("task", TASKS)
def test_two_processes_equal_one(task: str, together: list[dict[str, Any]], tmp_path: Path) -> None:
    size, alone = train(str(tmp_path), task, 8)
    assert size == 1
    for results in together:
        size, state = results[task]
        assert size == 2
        torch.testing.assert_close(state["latent"], alone["latent"], rtol=0, atol=1e-6)
        for name in ("ids", "best_ids", "step"):
            assert torch.equal(state[name], alone[name]), name
        torch.testing.assert_close(state["best_score"], alone["best_score"], rtol=1e-5, atol=1e-5)
