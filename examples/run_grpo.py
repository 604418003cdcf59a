"""Train a readable prompt by reinforcement learning on what the model writes, with TRL's own trainers.

    pip install trl
    python examples/run_grpo.py
    python examples/run_grpo.py --method rloo

It takes two to four minutes on two idle cores. Nothing in TRL knows about readable prompts:
`peft_config=InterpPromptConfig(...)` is all there is to it. The policy is the frozen model with the prompt in front;
rewards judge what it writes, and the prompt's latent is trained.

These trainers compute their own loss, so leave `perplexity_weight` at 0: the term would be computed and not used.
"""

from __future__ import annotations

import argparse
from typing import Any

import datasets
import torch
from transformers import set_seed
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from peft_interp import InterpPromptConfig, PromptCallback, embedded

TASK = embedded.TASKS["sentiment"]
METHODS: dict[str, Any] = {"grpo": (GRPOTrainer, GRPOConfig), "rloo": (RLOOTrainer, RLOOConfig)}


def load_prompts(split: str) -> datasets.Dataset:
    """Film reviews as TRL wants them: the text to continue under `prompt`, other columns for the rewards."""
    rows = embedded.load_data("sentiment")[split]
    return rows.map(lambda row: {"prompt": " " + TASK.fill(row["sentence"])}, remove_columns=["sentence"])


def right_word(completions: list[str], label: list[int], **columns: Any) -> list[float]:
    """1 where the model went on with the label's word, else 0."""
    words = [TASK.label_words[index] for index in label]
    return [float(text.split()[:1] == [word]) for text, word in zip(completions, words, strict=True)]


def main(argv: list[str] | None = None) -> Any:
    """Parse, train, show and save the prompt."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=sorted(METHODS), default="grpo")
    parser.add_argument(
        "--model_name_or_path", default="embedded", help="'embedded', 'smollm2', a hub name or a folder"
    )
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--learning_rate", type=float, default=0.1)
    parser.add_argument("--batch_size", type=int, default=64, help="completions; 8 for each text")
    parser.add_argument("--output_dir", default="outputs/grpo")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    set_seed(arguments.seed)
    tokenizer = embedded.load_tokenizer(arguments.model_name_or_path)
    trainer_class, config_class = METHODS[arguments.method]
    trainer = trainer_class(
        model=embedded.load_model(arguments.model_name_or_path),
        reward_funcs=right_word,
        args=config_class(
            output_dir=arguments.output_dir,
            max_steps=arguments.steps,
            learning_rate=arguments.learning_rate,
            lr_scheduler_type="constant",
            per_device_train_batch_size=arguments.batch_size,
            num_generations=8,
            max_completion_length=1,
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            bf16=False,
            gradient_checkpointing=False,
            dataloader_pin_memory=torch.cuda.is_available(),
            seed=arguments.seed,
        ),
        train_dataset=load_prompts("train"),
        processing_class=tokenizer,
        peft_config=InterpPromptConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=8,
            allowed_tokens="words",
            banned_words=list(TASK.label_words),
            tokenizer_name_or_path=arguments.model_name_or_path,
        ),
        callbacks=[PromptCallback(tokenizer)],
    )
    trainer.train()
    trainer.save_model()
    print(f"prompt: {trainer.model.prompt_text(tokenizer)!r}")
    return trainer


if __name__ == "__main__":
    main()
