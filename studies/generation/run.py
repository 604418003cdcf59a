"""One point: a task with some training and validation rows. The best of a person's prompts, the search's, and none."""

import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
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
from peft_interp.search.moves import SHOWN_BY
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
    train, dev = (
        drawn_rows(task, models.data_dir, split, count, point.seed)
        for split, count in (("train", size.train), ("validation", size.dev))
    )
    found = search(point, task, models, size, train, dev)
    return {
        "model": models.name,
        "dtype": str(models.model.dtype).removeprefix("torch."),
        "device": models.model.device.type,
        "size": asdict(size),
        "search": found,
        **tested(task, models, found["text"], size.test, train[0]["answer"]),
        "seconds": round(time.process_time() - begun, 1),
    }


def tested(task: Task, models: Models, text: str, rows: int, example: str) -> dict[str, Any]:
    """The search's prompt, none, and the best of a person's on the test rows, which are the same in every point.

    Of a person's prompts the best is that on the test rows themselves: nobody could have chosen a better one. The same
    prompts are tested once more with the answer `example` after them, which is what the search may add.
    """
    test, judge = drawn_rows(task, models.data_dir, "test", rows, TEST_SEED), _Judge(task, models)
    by_hand = {own: judge.tested(own, test) for own in task.written}
    shown = [judge.tested(f"{own} {SHOWN_BY} {example}", test) for own in task.written]
    ways = {
        "none": judge.tested("", test),
        **{name: max(of, key=_score) for name, of in (("written", by_hand.values()), ("shown", shown))},
        "search": judge.tested(text, test),
    }
    return {
        "written": {own: _score(record) for own, record in by_hand.items()},
        "test": ways,
        "tested_on": models.model.device.type,
    }


def _score(record: Mapping[str, Any]) -> float:
    return mean(record["scores"])


class _Judge:
    """What a task's reward says of a text on rows."""

    def __init__(self, task: Task, models: Models) -> None:
        self.reward = reward_on_answers(task.goal, task)
        self.settings: AnswerSettings = self.reward.settings
        self.tokenizer = models.tokenizer
        self.placement = PLACEMENTS[verbalizer_for(models.tokenizer).prompt_position]
        self.writer = AnswerWriter(models.model, models.tokenizer)

    def tested(self, text: str, rows: list[Row]) -> dict[str, Any]:
        examples = encoded(self.tokenizer, rows)
        asked = rows_to_answer(examples, self.tokenizer, self.placement)
        ids = self.placement.encode_prompt(self.tokenizer, text)
        written = self.writer.write([ids], asked, self.settings)[0]
        (found,) = call_answer_function(self.reward, "goal", [text], [written], examples, None)
        answers = [answer.text for answer in written]
        (commonest, times), *_ = Counter(answers).most_common(1)
        scores = [float(value or 0.0) for value in found]
        return {"text": text, "scores": scores, "answers": answers[:SHOWN], "commonest": commonest, "times": times}


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
