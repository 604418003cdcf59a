"""Train a readable prompt for a text classification task with a stock `Trainer`, in the manner of the HF examples.

With no arguments about model and data it runs on the embedded ones, in about a minute on two idle cores:

    python examples/run_classification.py --output_dir outputs/sentiment --perplexity_weight 0.3

Any causal LM and any data set, from the hub or from local files:

    python examples/run_classification.py --output_dir outputs/agnews \
        --model_name_or_path gpt2 --dataset_name fancyzhx/ag_news --text_column text \
        --template "{prompt} {text} Topic:" --label_words World Sports Business Technology \
        --perplexity_weight 0.1 --learning_rate 0.1 --max_steps 1000

Without the label words' prior, in training and in testing:

    python examples/run_classification.py --calibration batch --calibrated_loss True

A template that ends in {prompt}, such as "{text} {prompt}", puts the prompt right before the label's word. A chat model
gets its rows through its chat template, with the prompt inside the turn:

    python examples/run_classification.py --model_name_or_path smollm2 --chat system --template "{prompt} {text}"
"""

from __future__ import annotations

import logging
import math
import sys
from dataclasses import dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    set_seed,
)

from peft_interp import (
    InterpPromptConfig,
    PromptCallback,
    Verbalizer,
    calibrate,
    calibrated_loss,
    embedded,
    load_rows,
    text_nll,
)
from peft_interp.text.data_files import label_indices

logger = logging.getLogger(__name__)

_HELP = {f.name: f.metadata["help"] for f in fields(InterpPromptConfig) if "help" in f.metadata}


@dataclass
class ModelArguments:
    """Which model."""

    model_name_or_path: str = field(
        default="embedded", metadata={"help": "A causal LM: a hub name, a folder, 'embedded' or 'smollm2'."}
    )
    tokenizer_name: str | None = field(default=None, metadata={"help": "Its tokenizer, if stored elsewhere."})


@dataclass
class DataArguments:
    """Which data, and how they become text with a word to predict."""

    task: str = field(default="sentiment", metadata={"help": f"Embedded data set: {', '.join(embedded.TASKS)}."})
    dataset_name: str | None = field(default=None, metadata={"help": "A data set of the hub or a local folder."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Its configuration."})
    train_file: str | None = field(default=None, metadata={"help": "A csv, tsv, json or jsonl file to train on."})
    validation_file: str | None = field(default=None, metadata={"help": "One to choose the best prompt on."})
    test_file: str | None = field(default=None, metadata={"help": "One to report on."})
    text_column: str = field(default="sentence", metadata={"help": "Column with the text."})
    label_column: str = field(default="label", metadata={"help": "Column with the label, 0, 1, ..."})
    template: str | None = field(
        default=None, metadata={"help": "'{prompt} {text} It was', say, or '{text} {prompt}'."}
    )
    chat: str | None = field(
        default=None,
        metadata={
            "help": "For a chat model: 'user' makes the filled template the user's turn, 'system' has what is up to "
            "{prompt} in the system's; the answer is the assistant's."
        },
    )
    class_names: list[str] | None = field(
        default=None, metadata={"help": "The data's own labels in the words' order, where they are not 0, 1, ..."}
    )
    label_words: list[str] | None = field(default=None, metadata={"help": "The word for label 0, 1, ..."})
    first_token: bool = field(default=False, metadata={"help": "Score label words of several tokens by the first."})
    calibration: str = field(
        default="none",
        metadata={"help": "Take the label words' prior away: none, batch, content_free or fitted (on training rows)."},
    )
    max_length: int = field(default=128, metadata={"help": "Most tokens of an example, the prompt not counted."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on the first so many rows."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate and test on the first so many."})


@dataclass
class PromptArguments:
    """The prompt; the help texts are those of `InterpPromptConfig`."""

    num_virtual_tokens: int | None = field(default=None, metadata={"help": _HELP["num_virtual_tokens"]})
    perplexity_weight: float = field(default=0.0, metadata={"help": _HELP["perplexity_weight"]})
    perplexity_gradient: str = field(default="both", metadata={"help": _HELP["perplexity_gradient"]})
    projection_metric: str = field(default="cosine", metadata={"help": _HELP["projection_metric"]})
    allowed_tokens: str = field(default="printable", metadata={"help": _HELP["allowed_tokens"]})
    ban_label_words: bool = field(default=True, metadata={"help": "Keep the label words out of the prompt."})
    init_text: str | None = field(default=None, metadata={"help": "Text the prompt starts from."})
    init_words: list[str] | None = field(default=None, metadata={"help": _HELP["init_words"]})

    def config(self, tokenizer_name: str, verbalizer: Verbalizer) -> InterpPromptConfig:
        """As a PEFT config for a causal LM; the prompt stands where the template says."""
        settings: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        text, ban = settings.pop("init_text"), settings.pop("ban_label_words")
        if text is not None:
            settings |= {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": text}
        settings["banned_words"] = list(verbalizer.label_words) if ban else None
        settings["prompt_position"] = verbalizer.prompt_position
        return InterpPromptConfig(task_type="CAUSAL_LM", tokenizer_name_or_path=tokenizer_name, **settings)


@dataclass
class Training(TrainingArguments):
    """Trainer's arguments with defaults that suit a prompt: a high learning rate, the best prompt kept."""

    output_dir: str = "outputs/classification"
    learning_rate: float = 0.1
    lr_scheduler_type: str = "constant"
    max_steps: int = 300
    per_device_train_batch_size: int = 16
    per_device_eval_batch_size: int = 32
    eval_strategy: str = "steps"
    eval_steps: float | None = 50
    save_strategy: str = "steps"
    save_steps: float = 50
    save_total_limit: int | None = 2
    logging_steps: float = 50
    metric_for_best_model: str | None = "accuracy"
    greater_is_better: bool | None = True
    dataloader_pin_memory: bool = torch.cuda.is_available()
    calibrated_loss: bool = field(
        default=False, metadata={"help": "Train on the scores that `--calibration batch` tests with."}
    )


def load_data(arguments: DataArguments) -> datasets.DatasetDict:
    """Splits `train`, `validation` and `test`, as far as they exist.

    Raises:
        ValueError: no training rows.
    """
    given = {"train": arguments.train_file, "validation": arguments.validation_file, "test": arguments.test_file}
    files = {split: path for split, path in given.items() if path}
    if files:
        data = datasets.DatasetDict({split: load_rows(path) for split, path in files.items()})
    elif arguments.dataset_name:
        data = datasets.load_dataset(arguments.dataset_name, arguments.dataset_config_name)
    else:
        data = embedded.load_data(arguments.task)
    if "train" not in data:
        raise ValueError(f"no training rows in {sorted(data)}; give `--train_file` or a data set with a train split.")
    return data


def test_data_name(arguments: DataArguments) -> str:
    """What the test rows are called in a report, without a path of this machine."""
    if arguments.train_file or arguments.test_file:
        return Path(arguments.test_file or "").name
    own = arguments.dataset_name
    name = f"embedded:{arguments.task}" if own is None else Path(own).name if Path(own).exists() else own
    return f"{name} (test)"


def make_verbalizer(arguments: DataArguments) -> Verbalizer:
    """Template and label words; those of the embedded task where none are given.

    Raises:
        ValueError: data of one's own without label words.
    """
    own_data = arguments.dataset_name or arguments.train_file
    if own_data and not arguments.label_words:
        raise ValueError("`--label_words` is needed for data of your own: one word per label, in the labels' order.")
    default = embedded.TASKS[arguments.task]
    words = arguments.label_words or list(default.label_words)
    template = arguments.template or default.template
    return Verbalizer(template, words, arguments.first_token, arguments.calibration, arguments.chat)


def prepare(
    data: datasets.DatasetDict, verbalizer: Verbalizer, tokenizer: Any, arguments: DataArguments
) -> dict[str, Any]:
    """The splits as Trainer wants them; without a validation split, a tenth of the training rows becomes one."""
    splits = dict(data)
    if "validation" not in splits:
        halves = splits["train"].train_test_split(test_size=0.1, seed=0)
        splits |= {"train": halves["train"], "validation": halves["test"]}
    column, prepared = arguments.label_column, {}
    raw = {name: rows[column][:] for name, rows in splits.items()}
    indices = iter(label_indices(list(chain(*raw.values())), verbalizer.label_words, arguments.class_names))
    for name, rows in splits.items():
        labels = [next(indices) for _ in range(len(rows))]
        if labels != raw[name]:
            rows = rows.remove_columns(column).add_column(column, labels)
        limit = arguments.max_train_samples if name == "train" else arguments.max_eval_samples
        rows = rows.select(range(min(limit, len(rows)))) if limit else rows
        prepared[name] = verbalizer.encode_dataset(tokenizer, rows, arguments.text_column, column, arguments.max_length)
    return prepared


def keep_numbers(trainer: Trainer, tokenizer: Any, verbalizer: Verbalizer) -> None:
    """Estimate what the trained prompt needs beside its text, keep it with the adapter, and test with it.

    Training itself follows the loss of the whole vocabulary, which knows no such numbers.
    """
    model: Any = trainer.model
    rows: Any = trainer.train_dataset
    bias = calibrate(model, tokenizer, rows, verbalizer)
    model.keep_label_bias(bias)
    trainer.compute_metrics = verbalizer.accuracy(tokenizer, bias)
    print(f"\n{bias.sentence()}")


def report(trainer: Trainer, tokenizer: Any, test: Any | None) -> dict[str, Any]:
    """Test the prompt and say what it says; saving has put its text into `prompt.txt` beside the adapter."""
    model: Any = trainer.model
    nll = text_nll(model.get_base_model(), model.prompt_token_ids())
    metrics: dict[str, Any] = {"prompt_perplexity": math.exp(nll), **model.prompt_statistics()}
    if test is not None:
        metrics |= trainer.evaluate(test, metric_key_prefix="test")
    text = model.prompt_text(tokenizer)
    trainer.save_metrics("test", metrics)
    print(f"\nprompt:     {text!r}")
    print(f"perplexity: {metrics['prompt_perplexity']:,.1f} under the model itself")
    if test is not None:
        print(f"accuracy:   {metrics['test_accuracy']:.1%} on {len(test)} test rows")
    print(f"saved to:   {trainer.args.output_dir}")
    return metrics


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Parse, train, test, save."""
    groups: Any = (ModelArguments, DataArguments, PromptArguments, Training)
    parser = HfArgumentParser(groups, description=__doc__.split(":\n\n")[0])
    model_args, data_args, prompt_args, training = parser.parse_args_into_dataclasses(argv)
    logging.basicConfig(level=logging.INFO, handlers=[logging.StreamHandler(sys.stderr)])
    set_seed(training.seed)
    model_name = embedded.resolve(model_args.model_name_or_path)
    tokenizer_name = model_args.tokenizer_name or model_name
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_name)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    verbalizer = make_verbalizer(data_args)
    splits = prepare(load_data(data_args), verbalizer, tokenizer, data_args)
    base = AutoModelForCausalLM.from_pretrained(model_name, dtype="float32")
    config = prompt_args.config(tokenizer_name, verbalizer)
    config.align_logits_with_labels = training.calibrated_loss  # as any loss function needs it
    model = get_peft_model(base, config)
    trainer = Trainer(
        model=model,
        args=training,
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        compute_loss_func=calibrated_loss(tokenizer, verbalizer) if training.calibrated_loss else None,
        compute_metrics=verbalizer.accuracy(tokenizer),
        preprocess_logits_for_metrics=verbalizer.label_scores(tokenizer),
        callbacks=[PromptCallback(tokenizer)],
    )
    resume = training.resume_from_checkpoint  # a folder, or "True" for the last checkpoint in the output folder
    trainer.train(resume_from_checkpoint=True if str(resume).lower() == "true" else resume)
    if verbalizer.calibration != "none":
        keep_numbers(trainer, tokenizer, verbalizer)
    trainer.save_model()
    return report(trainer, tokenizer, splits.get("test"))


if __name__ == "__main__":
    main()
