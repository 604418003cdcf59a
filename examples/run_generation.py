"""Search a prompt by what the model writes: three small tasks, rewarded by reward functions on its answers.

With the embedded model, in one to four minutes on two CPU cores:

    python examples/run_generation.py --task label
    python examples/run_generation.py --task json --model_name_or_path smollm2

* `label`: a film review is answered with one of two words and nothing else; the share of right answers.
* `json`: a review is answered with a JSON object of the keys "film" and "opinion"; the share of valid objects.
* `first_sentence`: a text's first sentence is written again; ROUGE-L.

Prompts that a person wrote for the task stand beside the search's, on the same test rows. The embedded model writes
simple sentences at best: `json` and `first_sentence` are beyond it whatever the prompt, and the script will say so.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import get_peft_model
from transformers import set_seed

from peft_interp import (
    InterpPromptConfig,
    PromptSearchConfig,
    PromptSearchTrainer,
    compare_answers,
    embedded,
    exact_match_reward,
    json_reward,
    on_answers,
    rouge_reward,
)
from peft_interp.scoring.answer_comparison import AnswerComparison

REVIEWS = embedded.TASKS["sentiment"]
KEYS = ("film", "opinion")


@dataclass(frozen=True)
class Task:
    """One of the three.

    Attributes:
        written: prompts that a person wrote for it.
        row: a review and its label as `text`, what the model reads after the prompt, and perhaps `answer`.
        goal: what is reported, 0 to 1 for each answer.
        tokens: most new tokens of an answer.
        stop: texts that end one.
        slope: what the search is rewarded by beside the goal, where few prompts reach it at all.
    """

    written: Sequence[str]
    row: Callable[[str, int], dict[str, str]]
    goal: Any
    tokens: int
    stop: Sequence[str] = ()
    slope: Any = None


def first_sentence(text: str) -> str:
    """Up to the first full stop."""
    return text.split(". ")[0].rstrip(".") + "."


TASKS = {
    "label": Task(
        written=(
            "Is this film review terrible or great?",
            "Decide whether the writer liked the movie.",
            "Answer with one word, great or terrible.",
            "Movie review:",
            "The critic gave an honest verdict.",
        ),
        row=lambda text, label: {"text": f"{text} It was", "answer": REVIEWS.label_words[label]},
        goal=exact_match_reward(),
        tokens=2,
        stop=(".", "!", "\n"),
    ),
    "json": Task(
        written=(
            'Answer with a JSON object that has the keys "film" and "opinion".',
            'Write {"film": ..., "opinion": ...} about this review.',
            'Review as JSON, like {"film": "a comedy", "opinion": "good"}:',
            "Turn the review into JSON with film and opinion.",
            'Fill in the JSON object {"film": "", "opinion": ""} for the review.',
        ),
        row=lambda text, label: {"text": f"Review: {text}\nJSON:"},
        goal=json_reward(KEYS),
        tokens=28,
        stop=("}", "\n\n"),
        slope=json_reward(KEYS, partial=True),
    ),
    "first_sentence": Task(
        written=(
            "Copy the first sentence of the text.",
            "Write the first sentence of this text again.",
            "What is the first sentence?",
            "Repeat how the text begins.",
            "Quote the beginning of the text, one sentence only.",
        ),
        row=lambda text, label: {
            "text": f"Text: {text}\nFirst sentence:",
            "answer": first_sentence(text),
        },
        goal=rouge_reward(),
        tokens=20,
        stop=("\n",),
    ),
}


def load_rows(task: Task, name: str, count: int, split: str) -> list[dict[str, str]]:
    """The embedded reviews as this task has them; for `first_sentence` two of them in a row make a text."""
    rows = [row for row in embedded.load_data("sentiment")[split] if len(row["sentence"]) < 90]
    if name == "first_sentence":
        pairs = zip(rows[::2], rows[1::2], strict=False)
        rows = [{"sentence": f"{a['sentence']} {b['sentence']}", "label": 0} for a, b in pairs]
    return [task.row(row["sentence"], row["label"]) for row in rows[:count]]


def make_search(arguments: argparse.Namespace, task: Task) -> PromptSearchTrainer:
    """The search; everything but its rewards is as in run_search.py."""
    tokenizer = embedded.load_tokenizer(arguments.model_name_or_path)
    model: Any = get_peft_model(
        embedded.load_model(arguments.model_name_or_path),
        InterpPromptConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=arguments.longest_prompt,
            allowed_tokens="printable",
            tokenizer_name_or_path=embedded.resolve(arguments.model_name_or_path),
        ),
    )
    answers: dict[str, Any] = {"max_new_tokens": task.tokens, "stop_strings": task.stop}
    functions = [on_answers(goal, **answers) for goal in (task.goal, task.slope) if goal is not None]
    return PromptSearchTrainer(
        model,
        PromptSearchConfig(
            arguments.output_dir,
            max_steps=arguments.steps,
            prompts_per_step=arguments.prompts_per_step,
            start_texts=list(task.written) if arguments.start_from_written else None,
            human_starts=arguments.prompts_per_step // 2,
            screening_examples=8,
            save_strategy="no",
            report_to=[],
            dataloader_pin_memory=torch.cuda.is_available(),
            seed=arguments.seed,
        ),
        train_dataset=load_rows(task, arguments.task, arguments.rows, "train"),
        eval_dataset=load_rows(task, arguments.task, arguments.rows, "validation"),
        processing_class=tokenizer,
        reward_funcs=functions,
        text_column="text",
    )


def compare(trainer: PromptSearchTrainer, task: Task, test: list[dict[str, str]]) -> AnswerComparison:
    """The search's prompt, no prompt, and those that a person wrote, on the test rows."""
    rewards = on_answers(task.goal, max_new_tokens=task.tokens, stop_strings=task.stop)
    return compare_answers(
        trainer.model, trainer.processing_class, test, rewards, text_column="text", texts=task.written
    )


def main(argv: list[str] | None = None) -> AnswerComparison:
    """Parse, search, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=sorted(TASKS), default="label")
    parser.add_argument(
        "--model_name_or_path", default="embedded", help="'embedded', 'smollm2', a hub name or a folder"
    )
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--prompts_per_step", type=int, default=8)
    parser.add_argument("--rows", type=int, default=32, help="of training, and of validation")
    parser.add_argument("--test_rows", type=int, default=64)
    parser.add_argument("--longest_prompt", type=int, default=16, help="in tokens")
    parser.add_argument("--start_from_written", action="store_true", help="begin with the prompts that a person wrote")
    parser.add_argument("--output_dir", default="outputs/generation")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    set_seed(arguments.seed)
    task = TASKS[arguments.task]
    trainer = make_search(arguments, task)
    trainer.train()
    trainer.save_model()
    test = load_rows(task, arguments.task, arguments.test_rows, "test")
    found = compare(trainer, task, test)
    print(f"\nprompt: {trainer.model.prompt_text(trainer.processing_class)!r}")
    print(f"{arguments.task}, {len(test)} test rows of {arguments.model_name_or_path}:\n\n{found.to_markdown()}")
    return found


if __name__ == "__main__":
    main()
