"""`ScoredSearch`: what every search for prompts keeps: scored prompts, the best of them, and how processes share work.

Nothing here depends on the number of processes. Each scores its share of what is new and receives the others' scores,
so that two processes do what one with twice the prompts does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean as mean
from statistics import pstdev as std
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peft_interp.metrics.flags import find_flags
from peft_interp.scoring.archive import Archive, ScoredPrompt, Scores
from peft_interp.scoring.candidates import Candidate
from peft_interp.scoring.choice import Contender, most_readable, why
from peft_interp.scoring.examples import Examples
from peft_interp.scoring.pareto import pareto_front
from peft_interp.scoring.prompt_scorer import PromptScorer
from peft_interp.scoring.rewards import ERROR
from peft_interp.text.surrounding_text import surrounding_text
from peft_interp.text.tokenization import token_texts

if TYPE_CHECKING:
    from transformers import TrainerState


@dataclass(frozen=True)
class Best:
    """The best prompt so far.

    Attributes:
        ids: token ids of the task model.
        text: as a person reads it.
        score: what it was chosen by, higher is better.
        reward: the task's reward in its own units.
        split: "dev" for a held-out score, else "train".
        chosen_by: which score chose it, in words.
    """

    ids: tuple[int, ...]
    text: str
    score: float
    reward: float
    split: str
    chosen_by: str = ""

    def beats(self, other: Best | None) -> bool:
        """Whether this one replaces `other`; any held-out score replaces any training score, and never the reverse."""
        if other is None or self.split != other.split:
            return other is None or self.split == "dev"
        return self.score > other.score


def total_score(scores: Scores, weights: Mapping[str, float], reference: Mapping[str, tuple[float, float]]) -> float:
    """One number for a prompt; higher is better.

    A single reward is taken as it is, as published. Several are standardised by their mean and std in the run's first
    step, and mixed with the weights of the training reward.

    Args:
        scores: of the prompt.
        weights: of the rewards; negative where lower is better.
        reference: mean and std of each reward.

    Returns:
        The score. A reward that does not apply adds nothing, as does one without a reference, which would be compared
        raw; -inf where no reward applies.
    """
    values = {name: value for name in weights if (value := scores[name]) is not None}
    if not values:
        return -math.inf
    if len(weights) == 1:
        return sum(weights[name] * value for name, value in values.items())
    total = 0.0
    for name, value in values.items():
        centre, spread = reference.get(name, (value, 1.0))
        total += weights[name] * (value - centre) / spread
    return total


def best_unseen(
    archive: Archive, score: Callable[[Scores], float], count: int, split: str = "dev"
) -> list[ScoredPrompt]:
    """The `count` prompts of best training score that may be chosen and have no score yet on all examples of `split`.

    Where steps use parts of the training examples, a prompt's best score on any part counts.
    """
    best: dict[tuple[int, ...], tuple[float, ScoredPrompt]] = {}
    for record in archive.records:
        if record.split == "train" and record.fits and archive.find(record.ids, split) is None:
            value = score(record.scores)
            if record.ids not in best or value > best[record.ids][0]:
                best[record.ids] = (value, record)
    ordered = sorted(best.values(), key=lambda pair: -pair[0])
    return [record for _, record in ordered[:count]]


def mean_and_std(scores: Sequence[Scores], names: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Mean and std of every reward over some prompts; std 1 where it is constant."""
    known = {name: [value for s in scores if (value := s[name]) is not None] for name in names}
    return {name: (mean(values), std(values) or 1.0) for name, values in known.items() if values}


@dataclass(frozen=True)
class Processes:
    """How many processes search together, and how they exchange what they found.

    Attributes:
        count: number of processes.
        index: this one's.
        gather: a list from every process -> all of them joined, in the processes' order.
        agree: a tensor -> the first process's.
    """

    count: int = 1
    index: int = 0
    gather: Callable[[list[Any]], list[Any]] = list
    agree: Callable[[Tensor], Tensor] = lambda tensor: tensor


class ScoredSearch:
    """Scores prompts, remembers them, and knows the best.

    Args:
        scorer: what prompts are worth.
        train: the examples of the training reward.
        processes: those that search together.
        archive_path: file of the archive; None for processes that do not write it.
    """

    def __init__(
        self,
        scorer: PromptScorer,
        train: Examples,
        processes: Processes | None = None,
        archive_path: Path | None = None,
    ) -> None:
        self.scorer, self.train = scorer, train
        self.processes = processes or Processes()
        self.archive, self.archive_path = Archive(), archive_path
        self.best: Best | None = None
        self.evaluations = 0  # prompt-example pairs that were run so far, by all processes
        self.trainer_state: TrainerState | None = None
        task = scorer.task
        rows = task.rows_to_answer(train) if train.rows or scorer.writes else []
        self.beside = surrounding_text(task.tokenizer, rows, task.placement)

    def candidate(self, ids: Sequence[int]) -> Candidate:
        """The prompt that these ids of the task model are as text."""
        raise NotImplementedError

    def total(self, scores: Scores) -> float:
        """One number for a prompt, comparable over the whole run."""
        raise NotImplementedError

    def front(self, split: str) -> list[ScoredPrompt]:
        """The prompts that no other beats in both the task's reward and NLL, best reward first; one of each kind.

        Args:
            split: "dev", or "train" for those scored on all training examples. Without a perplexity model nothing is
                known of fluency, and only the best prompt is left.
        """
        known = [r for r in self.archive.records if r.split == split and r.rows is None and r.fits]
        if self.scorer.perplexity_model is not None:
            known = [r for r in known if r.scores.get("nll") is not None]
        pairs = {(self.scorer.reward(r.scores), -(r.scores.get("nll") or 0.0)): r for r in reversed(known)}
        if not pairs:
            return []
        points = list(pairs)
        best = [points[i] for i in pareto_front(torch.tensor(points, dtype=torch.float64))]
        return [pairs[point] for point in sorted(best, reverse=True)]

    def score(
        self,
        candidates: Sequence[Candidate],
        examples: Examples,
        step: int,
        split: str = "train",
        rows: tuple[int, ...] | None = None,
    ) -> list[ScoredPrompt]:
        """Scores of prompts; those in the archive are looked up, the others shared among the processes.

        Raises:
            Exception: what a reward raises, in every process; the archive is written first, with the prompts that other
                processes could score.
        """
        fresh = list({c.ids: c for c in candidates if self.archive.find(c.ids, split, rows) is None}.values())
        mine = list(enumerate(fresh))[self.processes.index :: self.processes.count]
        try:
            pairs, failure = self._measured(mine, examples)
            self.evaluations += len(pairs) * len(examples)
            self.evaluations += self.scorer.calibration_passes([fresh[number].ids for number, _ in pairs], examples)
            for number, scores in sorted(pairs, key=lambda pair: pair[0]):
                candidate = fresh[number]
                fits = candidate.fits and self.scorer.applies(scores)
                self.archive.add(ScoredPrompt(candidate.ids, candidate.text, step, scores, fits, split, rows))
            if failure is not None:
                raise failure
        except BaseException:  # Ctrl-C in a slow reward function, too
            self._keep_unfinished([candidate for _, candidate in mine], step, split, rows)
            self.write_archive()
            raise
        found = [self.archive.find(candidate.ids, split, rows) for candidate in candidates]
        return [record for record in found if record is not None]

    def _keep_unfinished(self, mine: Sequence[Candidate], step: int, split: str, rows: tuple[int, ...] | None) -> None:
        """What other rewards said of this process's prompts before one failed, where no look-up finds it."""
        for candidate, scores in zip(mine, self.scorer.unfinished, strict=False):
            if scores and self.archive.find(candidate.ids, split, rows) is None:
                self.archive.add(ScoredPrompt(candidate.ids, candidate.text, step, scores, False, "failed", rows))
        self.scorer.unfinished = []

    def _measured(
        self, mine: Sequence[tuple[int, Candidate]], examples: Examples
    ) -> tuple[list[tuple[int, Scores]], Exception | None]:
        """Scores of this process's numbered prompts and of the others', and what any of them raised: all raise."""
        failure: Exception | None = None
        try:
            scores = self.scorer.measure([candidate for _, candidate in mine], examples, self.trainer_state)
            told: list[Any] = [(i, found) for (i, _), found in zip(mine, scores, strict=True)]
        except Exception as error:
            failure, told = error, [f"{type(error).__name__}: {error}"]
        told = self.processes.gather(told)
        messages = [item for item in told if isinstance(item, str)]
        if messages and failure is None:
            failure = RuntimeError(f"another process could not score its prompts ({messages[0]}); see what it printed.")
        return [item for item in told if not isinstance(item, str)], failure

    def write_archive(self) -> None:
        """Append what is new to the archive's file."""
        if self.archive_path is not None:
            self.archive.write(self.archive_path)

    def metrics(
        self, found: Sequence[ScoredPrompt], candidates: Sequence[Candidate], known: Sequence[bool]
    ) -> dict[str, float]:
        """What a step is logged with: rewards and measures, and shares of `candidates`, `known` ones looked up."""
        raw = [self.scorer.reward(record.scores) for record in found if self.scorer.applies(record.scores)] or [0.0]
        metrics = {"reward": mean(raw), "reward_std": std(raw)}
        for name in found[0].scores:
            values = [value for record in found if (value := record.scores[name]) is not None]
            if values:
                metrics |= {f"rewards/{name}/mean": mean(values), f"rewards/{name}/std": std(values)}
        count = len(candidates)
        return metrics | {
            "evaluations_max": float(self.evaluations),
            "unique_prompts": len({candidate.ids for candidate in candidates}) / count,
            "cache_hit": sum(known) / count,
            "survived": sum(candidate.survived for candidate in candidates) / count,
            "fits": sum(candidate.fits for candidate in candidates) / count,
        }

    def offer(self, records: Sequence[ScoredPrompt]) -> bool:
        """Let prompts compete for the best; held-out scores count more than any training score.

        Scores on a part of the examples do not compare and are passed over. Of all that were scored on the held-out
        examples, the most fluent within one standard error of the best is the best one, see `scoring.choice`.
        """
        before = self.best
        for record in records:
            best = self._as_best(record, "the best training score")
            if record.split != "dev" and record.rows is None and record.fits and best.beats(self.best):
                self.best = best
        if any(record.split == "dev" for record in records):
            tried = [r for r in self.archive.records if r.split == "dev" and r.rows is None and r.fits]
            if tried:
                contenders = [self.contender(record) for record in tried]
                chosen = most_readable(contenders)
                top = max(contenders, key=lambda contender: contender.score)
                self.best = self._as_best(tried[chosen], why(contenders[chosen], top, "validation score"))
        return self.best != before

    def _as_best(self, record: ScoredPrompt, chosen_by: str) -> Best:
        scores = record.scores
        return Best(record.ids, record.text, self.total(scores), self.scorer.reward(scores), record.split, chosen_by)

    def contender(self, record: ScoredPrompt) -> Contender:
        """A prompt as `scoring.choice` compares it with others."""
        scores = record.scores
        texts = token_texts(self.scorer.task.tokenizer, record.ids)
        flagged = any(flag.unreadable for flag in find_flags(record.text, texts))
        return Contender(self.total(scores), self.error(scores), scores.get("nll"), flagged, scores.get("accuracy"))

    def error(self, scores: Scores) -> float | None:
        """Standard error of `total` over the examples, as far as the task's reward makes it; None if not known."""
        error, weight = scores.get(ERROR), self.scorer.weights.get(self.scorer.error_reward)
        return None if error is None or weight is None else abs(weight) * error

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs besides the archive."""
        best = None if self.best is None else {**asdict(self.best), "ids": list(self.best.ids)}
        return {"best": best, "evaluations": self.evaluations}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        best, self.evaluations = state["best"], state["evaluations"]
        self.best = None if best is None else Best(**{**best, "ids": tuple(best["ids"])})
