"""Search a readable prompt for a text classification task by reinforcement learning (RLPrompt, arXiv 2205.12548).

With no arguments about model and data it runs on the embedded ones, in three to five minutes on two idle cores:

    python examples/run_rlprompt.py --output_dir outputs/rlprompt --perplexity_reward_weight 0.3

With a reward for saying what it is for, by a sentence encoder (docs/real-models.md has how to install it):

    python examples/run_rlprompt.py --task_description "Say whether a film review is positive or negative."

The published setting, with any causal LM and any data set, from the hub or from local files:

    python examples/run_rlprompt.py --output_dir outputs/sst2 --model_name_or_path gpt2 \\
        --policy_model_name_or_path distilgpt2 \\
        --train_file train.tsv --validation_file dev.tsv --test_file test.tsv \\
        --template "{text} {prompt}" --label_words terrible great --allowed_tokens all \\
        --learning_rate 5e-5 --max_steps 12000
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from peft import get_peft_model
from run_classification import DataArguments, ModelArguments, load_data, make_verbalizer, prepare
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    HfArgumentParser,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    set_seed,
)

from peft_interp import InterpPromptConfig, RLPromptConfig, RLPromptTrainer, Verbalizer, embedded, task_naming_reward

_HELP = {f.name: f.metadata["help"] for f in fields(InterpPromptConfig) if "help" in f.metadata}


@dataclass
class PromptArguments:
    """The prompt; the help texts are those of `InterpPromptConfig`."""

    num_virtual_tokens: int | None = field(default=None, metadata={"help": "Prompt length in tokens (default: 5)."})
    allowed_tokens: str = field(default="words", metadata={"help": _HELP["allowed_tokens"]})
    ban_label_words: bool = field(default=True, metadata={"help": "Keep the label words out of the prompt."})
    init_text: str | None = field(default=None, metadata={"help": "Text the search starts from."})

    def config(self, tokenizer_name: str, verbalizer: Verbalizer) -> InterpPromptConfig:
        """As a PEFT config for a causal LM."""
        start: dict[str, Any] = {"num_virtual_tokens": self.num_virtual_tokens or 5}
        if self.init_text is not None:
            start = {"num_virtual_tokens": self.num_virtual_tokens, "prompt_tuning_init": "TEXT"}
            start["prompt_tuning_init_text"] = self.init_text
        return InterpPromptConfig(
            task_type="CAUSAL_LM",
            tokenizer_name_or_path=tokenizer_name,
            allowed_tokens=self.allowed_tokens,
            banned_words=list(verbalizer.label_words) if self.ban_label_words else None,
            prompt_position=verbalizer.prompt_position,
            **start,
        )


@dataclass
class Search(RLPromptConfig):
    """`RLPromptConfig` with a learning rate for hundreds of steps; the published one needs thousands."""

    output_dir: str = "outputs/rlprompt"
    learning_rate: float = 1e-3
    max_steps: int = 250
    examples_per_step: int | None = 32
    eval_strategy: str = "steps"
    eval_steps: float | None = 50
    save_strategy: str = "steps"
    save_steps: float = 50
    save_total_limit: int | None = 2
    logging_steps: float = 25
    dataloader_pin_memory: bool = torch.cuda.is_available()
    task_description: str | None = field(
        default=None,
        metadata={"help": "The task in a sentence: prompts that name it are rewarded (needs the sentence encoder)."},
    )
    task_naming_weight: float = field(default=0.5, metadata={"help": "Weight of that reward beside the task's 1."})


class BestSoFar(TrainerCallback):
    """Prints a line where Trainer would print a dictionary of all scores; `trainer_state.json` has those."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Time runs from here."""
        self.begun = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Step, seconds, and the prompt with the highest reward."""
        logs = kwargs.get("logs") or {}
        if state.is_world_process_zero and "best_prompt" in logs:
            seconds = time.perf_counter() - self.begun
            best = f"best reward {logs['best_reward']:.3f}: {logs['best_prompt']!r}"
            print(f"step {state.global_step} of {state.max_steps}, {seconds:.0f} s, {best}", flush=True)


def print_best_so_far(trainer: Trainer) -> None:
    """Let a trainer that scores prompts print short lines."""
    for shown in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(shown)
    trainer.add_callback(BestSoFar())


def report(trainer: RLPromptTrainer, test: Any | None) -> dict[str, Any]:
    """Test the prompt and say what it says, and what else the run found."""
    text = trainer.model.prompt_text(trainer.processing_class)
    metrics: dict[str, Any] = trainer.evaluate(test, metric_key_prefix="test") if test is not None else {}
    trainer.save_metrics("test", metrics)
    print(f"\nprompt:     {text!r}")
    if test is not None:
        print(f"accuracy:   {metrics['test_accuracy']:.1%} on {len(test)} test rows")
    if (bias := trainer.model.label_bias()) is not None:
        print(f"numbers:    {bias.sentence()}")
    print(f"saved to:   {trainer.args.output_dir}")
    print(
        "\nthe front of reward against readability (accuracy on validation rows; nats per token, lower is more fluent):"
    )
    for record in trainer.front():
        print(f"  {record.scores['accuracy']:6.1%}  {record.scores['nll']:5.2f}  {record.text!r}")
    return metrics


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Parse, search, test, save."""
    groups: Any = (ModelArguments, DataArguments, PromptArguments, Search)
    model_args, data_args, prompt_args, search = HfArgumentParser(
        groups, description=__doc__.split(":\n\n")[0]
    ).parse_args_into_dataclasses(argv)
    logging.basicConfig(level=logging.INFO, handlers=[logging.StreamHandler(sys.stderr)])
    set_seed(search.seed)
    model_name = embedded.resolve(model_args.model_name_or_path)
    tokenizer_name = model_args.tokenizer_name or model_name
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_name)
    verbalizer = make_verbalizer(data_args)
    splits = prepare(load_data(data_args), verbalizer, tokenizer, data_args)
    base = AutoModelForCausalLM.from_pretrained(model_name, dtype="float32")
    model = get_peft_model(base, prompt_args.config(tokenizer_name, verbalizer))
    if search.task_description is not None:
        search.reward_weights = [search.task_naming_weight]
    trainer = RLPromptTrainer(
        model=model,
        args=search,
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        processing_class=tokenizer,
        verbalizer=verbalizer,
        reward_funcs=None if search.task_description is None else task_naming_reward(search.task_description),
    )
    print_best_so_far(trainer)
    resume = search.resume_from_checkpoint  # a folder, or "True" for the last checkpoint in the output folder
    trainer.train(resume_from_checkpoint=True if str(resume).lower() == "true" else resume)
    trainer.save_model()
    return report(trainer, splits.get("test"))


if __name__ == "__main__":
    main()
