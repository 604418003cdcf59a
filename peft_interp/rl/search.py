"""`PromptSearch`: the state of a search, and its two moves: sample and score prompts, and choose the best one.

Nothing here depends on the number of processes. Every process draws all prompts of a step, scores its share of the new
ones, and receives the others' scores, so that two processes do what one with twice the prompts does.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from peft_interp.rl.config import RLPromptConfig
from peft_interp.rl.policy import Choice, PromptPolicy
from peft_interp.rl.sampling import example_places, prompt_noise
from peft_interp.scoring.archive import Archive, ScoredPrompt, Scores
from peft_interp.scoring.candidates import Candidate, PolicyVocabulary
from peft_interp.scoring.examples import Examples
from peft_interp.scoring.prompt_scorer import PromptScorer
from peft_interp.scoring.rewards import mixed_rewards, shaped
from peft_interp.scoring.selection import Best, best_unseen, mean, statistics, std, total_score


@dataclass(frozen=True)
class Rollout:
    """The sampled prompts of a step.

    Attributes:
        actions: (prompts, length) the policy's tokens.
        rewards: (prompts,) z-scored, mixed and shaped.
        metrics: what the step is logged with.
    """

    actions: Tensor
    rewards: Tensor
    metrics: dict[str, float]


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


class PromptSearch:
    """Samples, scores, remembers, chooses.

    Args:
        policy: where prompts come from.
        vocabulary: what its tokens mean to the task model.
        scorer: what prompts are worth.
        train: the examples of the training reward.
        length: tokens of a prompt.
        position: "start" or "end".
        config: the run's settings.
        processes: those that search together.
        archive_path: file of the archive; None for processes that do not write it.
    """

    def __init__(
        self,
        policy: PromptPolicy,
        vocabulary: PolicyVocabulary,
        scorer: PromptScorer,
        train: Examples,
        length: int,
        position: str,
        config: RLPromptConfig,
        processes: Processes | None = None,
        archive_path: Path | None = None,
    ) -> None:
        self.policy, self.vocabulary, self.scorer, self.train = policy, vocabulary, scorer, train
        self.length, self.position, self.config = length, position, config
        self.processes = processes or Processes()
        self.archive, self.archive_path = Archive(), archive_path
        self.choice = Choice(config.top_k or None, config.top_p, config.temperature, config.fluency_top_n)
        self.reference: dict[str, tuple[float, float]] = {}  # mean and std of every reward in the first step
        self.best: Best | None = None
        self.trainer_state: Any = None
        self._warned_constant = False
        self._following = _beginning(train, scorer)

    # -- sampling and scoring -------------------------------------------------------------------------------------

    def rollout(self, step: int, count: int, start: Sequence[int] | None = None) -> Rollout:
        """Sample `count` prompts and reward them.

        Args:
            step: optimizer step; with the seed and a prompt's place it decides what is drawn.
            count: prompts of all processes and accumulated batches.
            start: a given prompt (task model's ids) that is scored too, and takes the first place where the policy has
                its tokens.

        Raises:
            ValueError: a reward that is not a number. Whatever a reward function raises goes through; the archive is
                written first.
        """
        noise = prompt_noise(self.config.seed, step, count, self.length)
        actions = self.policy.sample(noise, self.choice)
        given = self.vocabulary.policy_ids(start) if start is not None else None
        if given is not None:
            actions[0] = torch.tensor(given)
        actions = self.processes.agree(actions)
        candidates = [self.candidate(self.vocabulary.task_ids(row)) for row in actions.tolist()]
        places = example_places(len(self.train), self.config.examples_per_step, self.config.seed, step)
        examples = self.train if places is None else self.train.subset(places)
        known = [self.archive.find(candidate.ids, rows=places) is not None for candidate in candidates]
        others = [] if start is None or given is not None else [self.candidate(start)]
        found = self.score([*others, *candidates], examples, step, rows=places)[-count:]
        if places is not None:
            self.scorer.forget(examples)
        if not self.reference:
            self.reference = statistics([record.scores for record in found], self.scorer.weights)
        rewards = self._rewards(found, step)
        return Rollout(actions, rewards.to(actions.device), self._metrics(found, candidates, known))

    def candidate(self, ids: Sequence[int]) -> Candidate:
        """The prompt that these ids of the task model are as text."""
        return self.vocabulary.candidate(ids, self.position, self._following)

    def score(
        self,
        candidates: Sequence[Candidate],
        examples: Examples,
        step: int,
        split: str = "train",
        rows: tuple[int, ...] | None = None,
    ) -> list[ScoredPrompt]:
        """Scores of prompts; those in the archive are looked up, the others shared among the processes."""
        fresh = {c.ids: c for c in candidates if self.archive.find(c.ids, split, rows) is None}
        mine = list(enumerate(fresh.values()))[self.processes.index :: self.processes.count]
        try:
            measured = self.scorer.measure([candidate for _, candidate in mine], examples, self.trainer_state)
        except Exception:
            self.write_archive()
            raise
        pairs = self.processes.gather([(i, scores) for (i, _), scores in zip(mine, measured, strict=True)])
        for (_, scores), candidate in zip(sorted(pairs, key=lambda pair: pair[0]), fresh.values(), strict=True):
            self.archive.add(ScoredPrompt(candidate.ids, candidate.text, step, scores, candidate.fits, split, rows))
        found = [self.archive.find(candidate.ids, split, rows) for candidate in candidates]
        return [record for record in found if record is not None]

    def write_archive(self) -> None:
        """Append what is new to the archive's file."""
        if self.archive_path is not None:
            self.archive.write(self.archive_path)

    def _rewards(self, found: Sequence[ScoredPrompt], step: int) -> Tensor:
        """(prompts,) rewards of the loss."""
        values = torch.tensor([_numbers(record.scores, self.scorer.weights) for record in found], dtype=torch.float64)
        rewards = mixed_rewards(values, list(self.scorer.weights.values()))
        if not rewards.any() and len({record.ids for record in found}) > 1 and not self._warned_constant:
            self._warned_constant = True
            warnings.warn(
                f"all {len(found)} prompts of step {step} got the same reward, from which nothing can be learned. "
                "Check that prompts change the model's answers (longer prompts, other label words, examples of every "
                "label), or use `task_reward='negative_loss'`, which is never quite the same.",
                stacklevel=2,
            )
        return shaped(rewards, self.config.reward_scale).float()

    def _metrics(
        self, found: Sequence[ScoredPrompt], candidates: Sequence[Candidate], known: Sequence[bool]
    ) -> dict[str, float]:
        raw = [self.scorer.reward(record.scores) for record in found]
        metrics = {"reward": mean(raw), "reward_std": std(raw)}
        for name in found[0].scores:
            values = [value for record in found if (value := record.scores[name]) is not None]
            if values:
                metrics |= {f"rewards/{name}/mean": mean(values), f"rewards/{name}/std": std(values)}
        count = len(candidates)
        return metrics | {
            "unique_prompts": len({candidate.ids for candidate in candidates}) / count,
            "cache_hit": sum(known) / count,
            "survived": sum(candidate.survived for candidate in candidates) / count,
            "fits": sum(candidate.fits for candidate in candidates) / count,
        }

    # -- choosing -------------------------------------------------------------------------------------------------

    def total(self, scores: Scores) -> float:
        """One number for a prompt, comparable over the whole run; see `total_score`."""
        return total_score(scores, self.scorer.weights, self.reference)

    def promising(self, count: int) -> list[Candidate]:
        """The prompts of best training score that the adapter can hold and no evaluation has seen."""
        return [Candidate(r.ids, r.text, True, True) for r in best_unseen(self.archive, self.total, count)]

    def offer(self, records: Sequence[ScoredPrompt]) -> bool:
        """Let prompts compete for the best; held-out scores count more than any training score."""
        before = self.best
        for record in records:
            best = Best(
                record.ids, record.text, self.total(record.scores), self.scorer.reward(record.scores), record.split
            )
            if record.fits and best.beats(self.best):
                self.best = best
        return self.best is not before

    def greedy(self) -> Candidate:
        """The prompt the policy likes best now."""
        ids = self.processes.agree(torch.tensor(self.policy.greedy(self.length, self.choice)))
        return self.candidate(self.vocabulary.task_ids(ids.tolist()))

    # -- keeping --------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs besides the policy and the archive."""
        return {
            "reference": {name: list(pair) for name, pair in self.reference.items()},
            "best": None if self.best is None else {**asdict(self.best), "ids": list(self.best.ids)},
            "warned_constant": self._warned_constant,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.reference = {name: (mean, std) for name, (mean, std) in state["reference"].items()}
        best = state["best"]
        self.best = None if best is None else Best(**{**best, "ids": tuple(best["ids"])})
        self._warned_constant = state["warned_constant"]


def _beginning(examples: Examples, scorer: PromptScorer) -> str:
    """The text of the first example, as it stands behind a prompt."""
    if not examples.rows:
        return ""
    ids = list(examples.rows[0]["input_ids"])
    leading = len(ids) > 0 and ids[0] in scorer.task.leading_ids
    tokenizer = scorer.task.tokenizer
    anchor = tokenizer.encode("a", add_special_tokens=False)
    text = tokenizer.decode([*anchor, *ids[int(leading) :]], clean_up_tokenization_spaces=False)
    return str(text)[len(tokenizer.decode(anchor)) :]


def _numbers(scores: Scores, names: Any) -> list[float]:
    return [math.nan if scores[name] is None else float(scores[name] or 0.0) for name in names]
