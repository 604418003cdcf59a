"""A script that trains prompt tuning trains a readable prompt when one line is changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Build = Callable[..., Any]

SCRIPT = """
from peft import PromptTuningConfig, get_peft_model
from transformers import Trainer, TrainingArguments
from peft_interp import InterpPromptConfig

config = CONFIG(task_type=task_type, num_virtual_tokens=4)
model = get_peft_model(base, config)
before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
args = TrainingArguments(
    output_dir,
    max_steps=15,
    learning_rate=learning_rate,
    per_device_train_batch_size=8,
    logging_steps=1,
    use_cpu=True,
    dataloader_pin_memory=False,
    save_strategy="no",
    disable_tqdm=True,
)
trainer = Trainer(model=model, args=args, train_dataset=rows)
trainer.train()
model.save_pretrained(output_dir)
"""

TASKS = [
    "CAUSAL_LM",
    "CAUSAL_LM/llama",
    "SEQ_CLS",
    "SEQ_CLS/gpt2",
    "SEQ_2_SEQ_LM",
    "TOKEN_CLS",
    "QUESTION_ANS",
]
# PEFT 0.21.2 cannot train prompt tuning for TOKEN_CLS: its logits are longer than the labels
CASES = [("InterpPromptConfig", task) for task in TASKS]
CASES += [("PromptTuningConfig", task) for task in TASKS if task != "TOKEN_CLS"]
LEARNING_RATE = {"SEQ_2_SEQ_LM": 1.0, "SEQ_CLS": 0.03}  # T5's rows are five times as long; a head learns slowly


@pytest.fixture
def run_script(base_for: Build, rows_for: Build, tmp_path: Path) -> Build:
    """`run_script(config, task)`: the names that the script leaves behind."""

    def run(config: str, task: str) -> dict[str, Any]:
        names = {"base": base_for(task), "rows": rows_for(task), "task_type": task.partition("/")[0]}
        names["learning_rate"] = LEARNING_RATE.get(task, 0.1)
        names["output_dir"] = str(tmp_path)
        exec(SCRIPT.replace("CONFIG", config), names)
        return names

    return run


@pytest.mark.parametrize(("config", "task"), CASES)
def test_stock_script_learns_and_leaves_the_base_alone(config: str, task: str, run_script: Build) -> None:
    names = run_script(config, task)
    losses = [entry["loss"] for entry in names["trainer"].state.log_history if "loss" in entry]
    assert sum(losses[-5:]) / 5 < losses[0] - 0.05
    after = names["model"].state_dict()
    assert list(after) == list(names["before"])
    changed = {name for name in after if not torch.equal(after[name], names["before"][name])}
    trained = ("prompt_encoder.default.", ".modules_to_save.default.")
    assert changed
    assert all(any(part in name for part in trained) for name in changed)


@pytest.mark.parametrize("task", ["CAUSAL_LM", "SEQ_CLS", "SEQ_2_SEQ_LM"])
def test_the_two_configs_train_the_same_number_of_parameters(
    task: str, base_for: Build, with_prompt: Build, readable: Build
) -> None:
    """What Trainer hands to the optimizer is a latent of the prompt's size (and the head), and nothing else."""
    stock, ours = (
        sorted(tuple(p.shape) for p in build(base_for(task), task).parameters() if p.requires_grad)
        for build in (with_prompt, readable)
    )
    if task == "SEQ_2_SEQ_LM":  # stock trains a second half of the prompt that nothing reads
        stock = [(4, 32)]
    assert ours == stock


def test_every_parameter_that_trains_gets_a_gradient(base_for: Build, rows_for: Build, readable: Build) -> None:
    for task in TASKS:
        model = readable(base_for(task), task.partition("/")[0]).train()
        batch = {
            name: torch.stack([torch.as_tensor(row[name]) for row in rows_for(task)]) for name in rows_for(task)[0]
        }
        model(**batch).loss.backward()
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None and bool(parameter.grad.any())) == parameter.requires_grad, (task, name)
