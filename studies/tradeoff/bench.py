"""What a method gets to work with (model, rows, seed, a budget of model evaluations) and the prompts it hands back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from peft_interp import InterpPromptConfig, embedded, text_nll
from peft_interp.scoring.archive import Archive, ScoredPrompt, front
from peft_interp.text.tokenization import leading_ids
from studies.tradeoff.answers import Answers, PromptAnswers
from studies.tradeoff.config import Study, TaskSettings
from studies.tradeoff.data import TaskData, load_task

STEP_COST = 3  # evaluations that a training row counts for: a pass forward, and one back that costs as much as two


class OverBudgetError(RuntimeError):
    """A method used more model evaluations than it was given."""


@dataclass
class Budget:
    """Model evaluations: prompt-example pairs run forward."""

    total: int
    spent: int = 0

    @property
    def left(self) -> int:
        """Evaluations that may still be used."""
        return self.total - self.spent

    def spend(self, count: int) -> None:
        """Note evaluations.

        Raises:
            OverBudgetError: more than there were.
        """
        self.spent += count
        if self.spent > self.total:
            raise OverBudgetError(f"{self.spent} model evaluations of {self.total} used.")

    def training_steps(self, batch_size: int, every: int, dev_rows: int) -> int:
        """Steps that fit, with an evaluation before the first, one every so many steps, and one after the last."""
        cost_of_one = STEP_COST * batch_size
        room = self.left - 2 * dev_rows
        whole, rest = divmod(max(0, room), every * cost_of_one + dev_rows)
        return whole * every + min(every - 1, rest // cost_of_one)


@dataclass
class Bench:
    """A task on a model, for one point.

    Attributes:
        model: the frozen causal LM.
        tokenizer: its tokenizer.
        data: the task's rows.
        budget: to be spent on the search.
        seed: of whatever is drawn.
        length: tokens of a prompt.
        board: every prompt of tokens that was scored on the dev rows.
    """

    model: Any
    tokenizer: Any
    data: TaskData
    budget: Budget
    seed: int
    length: int
    board: Archive = field(default_factory=Archive)

    def __post_init__(self) -> None:
        self.leading = leading_ids(self.tokenizer)
        self._dev = PromptAnswers(self.model, self.data, "dev", self.leading)

    def prompt_config(self, **settings: Any) -> InterpPromptConfig:
        """A prompt of real words in which no label word may stand."""
        common: dict[str, Any] = {
            "task_type": "CAUSAL_LM",
            "num_virtual_tokens": self.length,
            "tokenizer_name_or_path": self.tokenizer.name_or_path,
            "allowed_tokens": "words",
            "banned_words": list(self.data.settings.label_words),
        }
        return InterpPromptConfig(**{**common, **settings})

    def score_on_dev(
        self, prompts: Sequence[Sequence[int]], step: int = 0, calibrated: bool = False
    ) -> list[ScoredPrompt]:
        """Accuracy, loss and NLL of prompts; those known are looked up, the others are paid for.

        Args:
            prompts: their ids.
            step: of the method, for the record.
            calibrated: also "batch_accuracy", with each prompt's label prior on the training rows taken away; those
                rows are paid for, too.
        """
        fresh = list(dict.fromkeys(tuple(ids) for ids in prompts if self.board.find(ids, "dev") is None))
        rows = self.data.rows
        self.budget.spend(len(fresh) * (len(rows["dev"]) + (len(rows["train"]) if calibrated else 0)))
        priors: Sequence[Answers | None] = [None] * len(fresh)
        if calibrated:
            priors = PromptAnswers(self.model, self.data, "train", self.leading).of_prompts(fresh)
        for ids, answers, prior in zip(fresh, self._dev.of_prompts(fresh), priors, strict=True):
            self.board.add(self._record(ids, answers, step, prior))
        found = [self.board.find(ids, "dev") for ids in prompts]
        return [record for record in found if record is not None]

    def score_adapter_on_dev(self, adapter: Any) -> Answers:
        """The dev rows after an adapter, paid for."""
        self.budget.spend(len(self.data.rows["dev"]))
        return self._dev.of_adapter(adapter)

    def front(self, keep: Callable[[ScoredPrompt], bool] | None = None) -> list[ScoredPrompt]:
        """Of the prompts on the board (that `keep` lets stay) those no other beats in dev accuracy and NLL both."""
        return front(list(filter(keep, self.board.records)), higher=("accuracy",), lower=("nll",))

    def _record(self, ids: tuple[int, ...], answers: Answers, step: int, prior: Answers | None = None) -> ScoredPrompt:
        nll = text_nll(self.model, ids, self.leading) if len(ids) > 1 else None
        scores = {"accuracy": answers.accuracy, "loss": answers.loss, "nll": nll}
        if prior is not None and (calibrated := answers.calibrated(prior, "batch")) is not None:
            scores["batch_accuracy"] = calibrated.accuracy
        return ScoredPrompt(ids, self.text_of(ids), step, scores, split="dev")

    def text_of(self, ids: Sequence[int]) -> str:
        """The prompt as text."""
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


@dataclass(frozen=True)
class Prompt:
    """A prompt to be measured on the test rows.

    Attributes:
        role: "chosen" (what the method would be used with), "front" (another one on its dev front), or "reading" (the
            nearest tokens of the chosen vectors).
        ids: its tokens; None for vectors.
        adapter: the PEFT model that holds it; None for tokens that need none.
        dev: its dev scores, where it has any.
    """

    role: str
    ids: tuple[int, ...] | None = None
    adapter: Any = None
    dev: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """A run's result.

    Attributes:
        prompts: the chosen prompt first.
        details: how the search went, for the record.
    """

    prompts: list[Prompt]
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_board(
        cls,
        bench: Bench,
        chosen: Any,
        start: ScoredPrompt,
        details: dict[str, Any],
        keep: Callable[[ScoredPrompt], bool] | None = None,
    ) -> Found:
        """The chosen prompt, and those on the front of everything that was scored on dev and that `keep` lets stay."""
        record = next(record for record in bench.board.records if record.ids == tuple(chosen))
        others = [other for other in bench.front(keep) if other.ids != record.ids]
        prompts = [Prompt("chosen", record.ids, dev=record.scores)]
        prompts += [Prompt("front", other.ids, dev=other.scores) for other in others]
        best = max(other.scores["accuracy"] or 0.0 for other in bench.board.records)
        return cls(prompts, {**details, **progress(start, record, best)})


def progress(start: ScoredPrompt, chosen: ScoredPrompt, best: float) -> dict[str, Any]:
    """Whether a search got away from where it started.

    A run is *stuck* where no prompt that it scored on dev answers more of those rows than the start; it is *frozen*
    where the chosen prompt is the start. A start at the ceiling would count as stuck too, which random tokens are not.

    Args:
        start: where the run began.
        chosen: what it ended with.
        best: the highest dev accuracy of the run, 0 to 1.
    """
    moved = sum(a != b for a, b in zip(start.ids, chosen.ids, strict=False)) + abs(len(start.ids) - len(chosen.ids))
    return {
        "start_text": start.text,
        "start_accuracy": start.scores["accuracy"],
        "start_nll": start.scores["nll"],
        "moved_share": moved / max(1, len(chosen.ids)),
        "frozen": start.ids == chosen.ids,
        "stuck": best <= (start.scores["accuracy"] or 0.0),
    }


def thinned(prompts: list[Prompt], most: int) -> list[Prompt]:
    """The chosen prompt, its reading, and at most `most` of the front, evenly spread over it."""
    front = [prompt for prompt in prompts if prompt.role == "front"]
    if len(front) > most:
        places = [round(i * (len(front) - 1) / max(1, most - 1)) for i in range(most)]
        front = [front[place] for place in places]
    return [prompt for prompt in prompts if prompt.role != "front"] + front


def load_model(path: str, dtype: str = "float32", device: str = "cpu") -> Any:
    """A causal LM on a device, frozen and in evaluation mode."""
    model = AutoModelForCausalLM.from_pretrained(embedded.resolve(path), dtype=getattr(torch, dtype))
    return model.to(device).eval().requires_grad_(False)  # type: ignore[arg-type]


def load_tokenizer(path: str) -> Any:
    """Its tokenizer, with a padding token."""
    tokenizer = AutoTokenizer.from_pretrained(embedded.resolve(path))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def make_bench(study: Study, task: TaskSettings, split: int, seed: int) -> Bench:
    """A fresh model and the task's rows."""
    tokenizer = load_tokenizer(study.tokenizer_path)
    data = load_task(study, task, split, tokenizer)
    model = load_model(study.model_path, study.dtype, study.device)
    return Bench(model, tokenizer, data, Budget(study.budget), seed, study.prompt_length)
