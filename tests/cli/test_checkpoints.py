"""A checkpoint of Trainer's stays one: what the command line leaves there does not break resuming."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from peft_interp import InterpPromptConfig, embedded

Build = Callable[..., Any]


def trainer(folder: Path) -> Trainer:
    """Of a fresh model, the same at every call; saves each of two steps."""
    tokenizer, task = embedded.load_tokenizer(), embedded.TASKS["sentiment"]
    rows = task.encode_dataset(tokenizer, embedded.load_data("sentiment")["train"].select(range(4)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
        model: Any = get_peft_model(embedded.load_model(), config)
    args = TrainingArguments(
        str(folder),
        max_steps=2,
        save_strategy="steps",
        save_steps=1,
        learning_rate=0.3,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    return Trainer(model=model, args=args, train_dataset=rows, data_collator=DataCollatorForSeq2Seq(tokenizer))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with two checkpoints."""
    folder = tmp_path_factory.mktemp("run") / "out"
    trainer(folder).train()
    return folder


@pytest.mark.parametrize("place", ["checkpoint-1", "renamed", "."])
def test_an_attached_report_does_not_break_resuming(run: Build, trained: Path, tmp_path: Path, place: str) -> None:
    """By its name, under another name, and from within."""
    folder = tmp_path / ("renamed" if place == "renamed" else "checkpoint-1")
    shutil.copytree(trained / "checkpoint-1", folder)
    if place == ".":
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            ran = run("read", ".", "--attach")
    else:
        ran = run("read", folder, "--attach")
    assert ran.code == 0, ran.err
    assert (folder / "prompt_report.json").exists()
    assert "### Verdict" in (folder / "README.md").read_text()
    resumed = trainer(tmp_path / "again")
    resumed.train(resume_from_checkpoint=str(folder))
    assert resumed.state.global_step == 2
    assert list(resumed.model.peft_config) == ["default"]


def test_a_copy_is_not_exported_into_a_checkpoint(run: Build, trained: Path) -> None:
    ran = run("export", trained / "checkpoint-1", "--to", "portable", "--output", trained / "checkpoint-1" / "plain")
    assert (ran.code, ran.out) == (1, "")
    assert "lies within a checkpoint, which Trainer would then resume as a model with two adapters" in ran.err
    assert not (trained / "checkpoint-1" / "plain").exists()
