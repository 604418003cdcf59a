"""A stock `transformers.Trainer` run within a budget; a callback looks at the prompt every few steps."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    DataCollatorForSeq2Seq,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from studies.tradeoff.bench import STEP_COST, Bench

BATCH_SIZE, EVERY = 16, 10


class Look(TrainerCallback):
    """Calls a function before the first step, every few steps, and after the last."""

    def __init__(self, look: Callable[[int], None], every: int) -> None:
        self.look, self.every, self.last = look, every, -1

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The start."""
        self._at(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One optimizer step done."""
        if state.global_step % self.every == 0:
            self._at(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The end."""
        self._at(state.global_step)

    def _at(self, step: int) -> None:
        if step != self.last:
            self.last = step
            self.look(step)


def train(
    bench: Bench,
    model: Any,
    look: Callable[[int], None],
    learning_rate: float,
    schedule: str = "constant",
    batch_size: int = BATCH_SIZE,
    every: int = EVERY,
    **arguments: Any,
) -> int:
    """Train an adapter until the budget is used, looking at it every `every` steps.

    Args:
        bench: task and budget; the steps are paid for here, what `look` evaluates by `look`.
        model: the PEFT model.
        look: called with the number of steps done.
        learning_rate: Trainer's.
        schedule: its schedule.
        batch_size: rows in a step.
        every: steps between two looks.
        arguments: other `TrainingArguments`.

    Returns:
        Steps done.
    """
    steps = bench.budget.training_steps(batch_size, every, len(bench.data.rows["dev"]))
    bench.budget.spend(steps * STEP_COST * batch_size)
    with tempfile.TemporaryDirectory() as folder:
        set_seed(bench.seed)
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                max_steps=steps,
                learning_rate=learning_rate,
                lr_scheduler_type=schedule,
                per_device_train_batch_size=batch_size,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
                seed=bench.seed,
                dataloader_drop_last=len(bench.data.rows["train"]) >= batch_size,
                dataloader_pin_memory=torch.cuda.is_available(),
                **arguments,
            ),
            train_dataset=Dataset.from_list(bench.data.rows["train"]),
            data_collator=DataCollatorForSeq2Seq(bench.tokenizer),
            callbacks=[Look(look, every)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        trainer.train()
    return steps
