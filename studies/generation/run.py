"""One point: a task with some training and validation rows. The best of a person's prompts, the search's, and none."""

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from transformers import set_seed

from peft_interp import InterpPromptConfig, PromptSearchConfig, PromptSearchTrainer, on_answers
from peft_interp.answers.rewards import AnswerReward
from peft_interp.answers.settings import AnswerSettings
from peft_interp.answers.writer import AnswerWriter
from peft_interp.scoring.examples import rows_to_answer
from peft_interp.scoring.rewards import call_answer_function
from peft_interp.text.placement import PLACEMENTS
from studies.generation.tasks import Row, Task, drawn_rows, encoded, task_named, verbalizer_for
from studies.tradeoff.methods.searches import shares

TEST_SEED = 0  # the same test rows in every point
ANY = 1e9  # a perplexity that every prompt is within: the reward alone chooses
SHOWN = 3  # answers that are kept of each prompt


@dataclass(frozen=True)
class Size:
    """How much is run.

    Attributes:
        train, dev, test: rows that reward the search, that choose among prompts, that are reported.
        steps, prompts: of the search, and prompts scored in each.
        screening: training rows on which a prompt is scored first.
        chosen_of: prompts of the search that the validation rows choose from.
        longest: tokens of a prompt.
    """

    train: int = 12
    dev: int = 16
    test: int = 60
    steps: int = 3
    prompts: int = 10
    screening: int = 6
    chosen_of: int = 5
    longest: int = 40


TRIAL = Size(train=4, dev=4, test=6, steps=1, prompts=6, screening=2, chosen_of=2)


@dataclass(frozen=True)
class Point:
    """One run.

    Attributes:
        task: its name.
        seed: of rows and search.
    """

    task: str
    seed: int

    @property
    def key(self) -> str:
        """Name of its file."""
        return f"{self.task}-{self.seed}"


@dataclass(frozen=True)
class Models:
    """What points share.

    Attributes:
        name: of the model.
        model: the causal LM.
        tokenizer: its tokenizer.
        data_dir: data that is not in the package.
    """

    name: str
    model: Any
    tokenizer: Any
    data_dir: Path


def run_point(point: Point, models: Models, size: Size) -> dict[str, Any]:
    """Everything that is known of a point, as what JSON can hold."""
    task, begun = task_named(point.task), time.process_time()
    train, dev, test = (
        drawn_rows(task, models.data_dir, split, count, seed)
        for split, count, seed in (
            ("train", size.train, point.seed),
            ("validation", size.dev, point.seed),
            ("test", size.test, TEST_SEED),
        )
    )
    judge = _Judge(task, models)
    written = [sum(judge.scores(text, dev)) / len(dev) for text in task.written]
    best = max(range(len(written)), key=lambda i: written[i])
    found = search(point, task, models, size, train, dev)
    texts = {"none": "", "written": task.written[best], "search": found["text"]}
    return {
        "model": models.name,
        "dtype": str(models.model.dtype).removeprefix("torch."),
        "device": models.model.device.type,
        "size": asdict(size),
        "written": dict(zip(task.written, written, strict=True)),
        "search": found,
        "test": {
            name: {"text": text, "scores": judge.scores(text, test), "answers": judge.answers(text, test)[:SHOWN]}
            for name, text in texts.items()
        },
        "seconds": round(time.process_time() - begun, 1),
    }


class _Judge:
    """What a task's reward says of a text on rows."""

    def __init__(self, task: Task, models: Models) -> None:
        self.reward = reward_on_answers(task.goal, task)
        self.settings: AnswerSettings = self.reward.settings
        self.tokenizer = models.tokenizer
        self.placement = PLACEMENTS[verbalizer_for(models.tokenizer).prompt_position]
        self.writer = AnswerWriter(models.model, models.tokenizer)

    def answers(self, text: str, rows: list[Row]) -> list[str]:
        return [answer.text for answer in self._written(text, rows)]

    def _written(self, text: str, rows: list[Row]) -> Any:
        asked = rows_to_answer(encoded(self.tokenizer, rows), self.tokenizer, self.placement)
        ids = self.placement.encode_prompt(self.tokenizer, text)
        return self.writer.write([ids], asked, self.settings)[0]

    def scores(self, text: str, rows: list[Row]) -> list[float]:
        examples = encoded(self.tokenizer, rows)
        (found,) = call_answer_function(self.reward, "goal", [text], [self._written(text, rows)], examples, None)
        return [float(value or 0.0) for value in found]


def reward_on_answers(function: Any, task: Task) -> AnswerReward:
    """A reward on a task's answers."""
    return on_answers(function, max_new_tokens=task.tokens, stop_strings=task.stop)


def search(point: Point, task: Task, models: Models, size: Size, train: list[Row], dev: list[Row]) -> dict[str, Any]:
    """The search's prompt, and what each kind of proposal brought.

    It begins with the prompts that a person wrote, as somebody who wants a better one would.
    """
    set_seed(point.seed)
    verbalizer = verbalizer_for(models.tokenizer)
    config = InterpPromptConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=size.longest,
        allowed_tokens="all",
        prompt_position=verbalizer.prompt_position,
        tokenizer_name_or_path=models.model.name_or_path,
    )
    model: Any = get_peft_model(models.model, config)
    functions = [reward_on_answers(f, task) for f in (task.goal, task.slope) if f is not None]
    with tempfile.TemporaryDirectory() as folder:
        args = PromptSearchConfig(
            folder,
            max_steps=size.steps,
            prompts_per_step=size.prompts,
            start_texts=list(task.written),
            human_starts=0,
            screening_examples=size.screening,
            eval_candidates=size.chosen_of,
            proposals_per_prompt=3,
            population_size=12,
            max_perplexity=ANY,
            continuation_share=0.2,
            rewrite_share=0.2,
            example_share=0.6,
            known_words=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
            seed=point.seed,
        )
        options: dict[str, Any] = {"text_column": "text", "label_column": "answer"}
        tokenizer = models.tokenizer
        trainer = PromptSearchTrainer(model, args, train, dev, tokenizer, verbalizer, functions, **options)
        trainer.train()
    found = trainer.search
    return {
        "text": model.prompt_text(tokenizer),
        "front": [record.text for record in trainer.front("dev")[:SHOWN]],
        "prompts": len({record.ids for record in found.archive.records}),
        "evaluations": found.evaluations,
        "yields": dict(sorted(shares(trainer.state.log_history).get("yield", {}).items())),
    }
