"""The main job in one command: train prompts on a small model and compare what they score and what they say.

    python examples/quickstart.py  # two minutes on two idle cores
    python examples/quickstart.py --model_name_or_path smollm2 --steps 30 --weights 0.1 --test_rows 100  # about two

Every method is an unmodified `transformers.Trainer` run; only the config line differs. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import peft
import torch
import transformers
from peft import PromptTuningConfig, get_peft_model
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from transformers import (
    DataCollatorForSeq2Seq,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from peft_interp import InterpPromptConfig, embedded, text_nll

HAND_WRITTEN = {
    "sentiment": "Is this film review positive or negative?",
    "topic": "What is this news article about?",
}
LENGTH = 8
# Of two idle cores for a step, evaluation included; SmolLM2's as `make real` took on an EPYC
SECONDS = {"embedded": 0.12, "smollm2": 2.0}


@dataclass
class Row:
    """One line of the result."""

    method: str
    accuracy: float
    perplexity: float
    text: str
    seconds: float = 0.0


@dataclass
class Task:
    """What every method is given."""

    name: str
    model: str
    tokenizer: Any
    train: Any
    test: Any

    @classmethod
    def load(cls, name: str, model: str, test_rows: int | None = None) -> Task:
        """An embedded data set, with the template filled in for a model's tokenizer."""
        tokenizer, verbalizer = embedded.load_tokenizer(model), embedded.TASKS[name]
        data = {
            split: verbalizer.encode_dataset(tokenizer, rows, max_length=96)
            for split, rows in embedded.load_data(name).items()
        }
        test = data["test"].shuffle(seed=0).select(range(min(test_rows or len(data["test"]), len(data["test"]))))
        return cls(name, model, tokenizer, data["train"], test)


class Bar(TrainerCallback):
    """Moves one progress bar along with Trainer's steps."""

    def __init__(self, progress: Progress, description: str) -> None:
        self.progress, self.task = progress, progress.add_task(description, total=None)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One optimizer step done."""
        self.progress.update(self.task, completed=state.global_step, total=state.max_steps)


def make_trainer(model: Any, task: Task, steps: int, callbacks: list[Any]) -> Trainer:
    """A stock Trainer; nothing in it knows about prompts."""
    verbalizer = embedded.TASKS[task.name]
    return Trainer(
        model=model,
        args=TrainingArguments(
            output_dir="outputs/quickstart",
            max_steps=steps,
            learning_rate=0.1,
            lr_scheduler_type="constant",
            per_device_train_batch_size=16,
            per_device_eval_batch_size=60,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
            logging_strategy="no",
        ),
        train_dataset=task.train,
        data_collator=DataCollatorForSeq2Seq(task.tokenizer),
        compute_metrics=verbalizer.accuracy(task.tokenizer),
        preprocess_logits_for_metrics=verbalizer.label_scores(task.tokenizer),
        callbacks=callbacks,
    )


def run(method: str, config: Any, task: Task, progress: Progress, steps: int = 0, seed: int = 0) -> Row:
    """Train (unless `steps` is 0) and test one method, by its last prompt."""
    begun = time.perf_counter()
    set_seed(seed)
    base = embedded.load_model(task.model)
    model: Any = base if config is None else get_peft_model(base, config)
    readable = isinstance(config, InterpPromptConfig)
    bar = Bar(progress, method)
    trainer = make_trainer(model, task, steps, [bar])
    trainer.remove_callback(PrinterCallback)  # the progress bars take its place
    if steps:
        trainer.train()
    accuracy = trainer.evaluate(task.test, metric_key_prefix="test")["test_accuracy"]
    progress.update(bar.task, completed=max(steps, 1), total=max(steps, 1))
    perplexity, text = float("nan"), "(vectors, no text)" if config is not None else ""
    if readable:
        ids, text = model.prompt_token_ids(), model.prompt_text(task.tokenizer)
        perplexity = math.exp(text_nll(model.get_base_model(), ids))
    return Row(method, accuracy, perplexity, text, time.perf_counter() - begun)


def compare(task: Task, steps: int, weights: list[float], seed: int) -> list[Row]:
    """All methods, one after the other."""
    columns = (TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    written = InterpPromptConfig(
        task_type="CAUSAL_LM",
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text=HAND_WRITTEN[task.name],
        tokenizer_name_or_path=task.model,
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        rows = [
            run("no prompt", None, task, progress),
            run("hand-written", written, task, progress),
            run("soft prompt (stock)", soft_prompt(), task, progress, steps, seed),
        ]
        for weight in weights:
            name = f"PEZ + {weight:g} perplexity" if weight else "PEZ"
            rows.append(run(name, pez(task, weight), task, progress, steps, seed))
    return rows


def soft_prompt() -> PromptTuningConfig:
    """PEFT's own prompt tuning."""
    return PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=LENGTH, prompt_tuning_init=peft.PromptTuningInit.SAMPLE_VOCAB
    )


def pez(task: Task, weight: float) -> InterpPromptConfig:
    """PEZ, with a perplexity term where `weight` is above 0; the label words may not be copied into the prompt."""
    return InterpPromptConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=LENGTH,
        perplexity_weight=weight,
        allowed_tokens="words",
        banned_words=list(embedded.TASKS[task.name].label_words),
        tokenizer_name_or_path=task.model,
    )


def show(task: Task, rows: list[Row], console: Console) -> None:
    """The table a person reads."""
    table = Table(title=f"{task.name}: {len(task.train)} training rows, {len(task.test)} test rows")
    table.add_column("method")
    table.add_column("accuracy", justify="right")
    table.add_column("perplexity", justify="right")
    table.add_column("what the prompt says")
    for row in rows:
        perplexity = "" if math.isnan(row.perplexity) else f"{row.perplexity:,.0f}"
        table.add_row(row.method, f"{row.accuracy:.1%}", perplexity, repr(row.text) if row.text else "")
    console.print(table)
    console.print(
        "perplexity: of the prompt under the model itself; lower is more fluent, but it is a proxy that repeats and "
        "boilerplate can fool. Read the text."
    )


def plan(model: str, trained: int, steps: int) -> str:
    """What will be done, and how long it takes."""
    said = f"{trained} prompts are trained, {steps} steps each, and tested beside no prompt and a hand-written one"
    if model not in SECONDS:
        return f"{said}; the bars show how far each is."
    minutes = trained * steps * SECONDS[model] / 60
    shown = f"{minutes:.0f} minutes" if minutes > 1.5 else "a minute"
    return f"{said}: about {shown} on two idle cores, and longer beside other work."


def quieten() -> None:
    """Leave the screen to the progress bars and the table."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")  # PEFT 0.21.2


def main() -> None:
    """Parse, compare, print, and write the rows if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=sorted(embedded.TASKS), default="sentiment")
    parser.add_argument(
        "--model_name_or_path", default="embedded", help="'embedded', 'smollm2', a hub name or a folder"
    )
    parser.add_argument("--test_rows", type=int, help="so many test rows instead of all")
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps for every trained prompt")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 0.03, 0.3, 1.0], help="perplexity weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="write the rows to this JSON file as well")
    arguments = parser.parse_args()
    quieten()
    console = Console()
    console.print(plan(arguments.model_name_or_path, 1 + len(arguments.weights), arguments.steps))
    task = Task.load(arguments.task, arguments.model_name_or_path, arguments.test_rows)
    rows = compare(task, arguments.steps, arguments.weights, arguments.seed)
    show(task, rows, console)
    if arguments.output:
        arguments.output.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
