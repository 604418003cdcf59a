"""`FluentSearch`: a population of prompts along the front of task and fluency, and how a step moves it on.

Every process makes the same proposals (they depend on seed and step alone) and scores its share of the chosen ones.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from peft_interp.scoring.archive import ScoredPrompt
from peft_interp.scoring.candidates import Candidate, place_candidate
from peft_interp.scoring.examples import Examples
from peft_interp.scoring.pareto import best_order
from peft_interp.scoring.prompt_scorer import PromptScorer
from peft_interp.scoring.scored_search import Processes, mean
from peft_interp.search.config import PromptSearchConfig
from peft_interp.search.constraints import Constraints
from peft_interp.search.front import FluencyScale, FrontSearch
from peft_interp.search.proposals import Proposer
from peft_interp.search.surrogate import fit_surrogate

GROWTH = 4  # each round uses so many times the examples of the one before


def screening_rounds(train: Examples, first: int | None, seed: int) -> list[tuple[int, ...] | None]:
    """Places of the examples of every round, the same in the whole run, so that prompts of different steps compare.

    Args:
        train: all examples.
        first: how many the first round has; None: all.
        seed: of their choice.

    Returns:
        Rounds that contain each other and hold the labels in equal parts where there are label words; the last is
        None, for all examples.
    """
    total, rounds = len(train), []
    order = Random(seed).sample(range(total), total)
    if train.gold is not None:
        labels, turn = train.gold.tolist(), {}
        seen: Counter[int] = Counter()
        for i in order:
            turn[i] = seen[labels[i]]  # how many of its label stand before it
            seen[labels[i]] += 1
        order.sort(key=lambda i: turn[i])
    size = first or total
    while size < total:
        rounds.append(tuple(sorted(order[:size])))
        size *= GROWTH
    return [*rounds, None]


LEAST_KNOWN = 16  # scored prompts from which on rewards are guessed
ATTEMPTS = 4  # to find a proposal that is new and can be read, before a step goes by without
EXPLORING_NOISE = 0.5  # noise on a guess, in units of its error


class FluentSearch(FrontSearch):
    """Evolutionary search over fluent prompts: a population is changed, guessed at, scored on rows, and cut down.

    Args:
        proposer: where new prompts come from.
        scale: what their NLL means.
        allowed: (vocabulary,) bool, the adapter's filter.
        constraints: what a prompt must be to be scored.
        scorer: what prompts are worth.
        train: the examples of the training reward.
        config: the run's settings.
        processes: those that search together.
        archive_path: file of the archive; None for processes that do not write it.

    Attributes:
        evaluations: prompt-example pairs that were run, those of gradients three times.
        prompt_passes: rows of prompts alone that were run besides: proposals read, prompts gone on from, prompts
            judged. Every process makes the same proposals; they count once.
    """

    def __init__(
        self,
        proposer: Proposer,
        scale: FluencyScale,
        allowed: Tensor,
        constraints: Constraints,
        scorer: PromptScorer,
        train: Examples,
        config: PromptSearchConfig,
        processes: Processes | None = None,
        archive_path: Path | None = None,
    ) -> None:
        super().__init__(scale, constraints, scorer, train, processes, archive_path)
        self.proposer, self.config = proposer, config
        self.allowed = allowed.cpu()
        self.members: list[tuple[int, ...]] = []  # the population, best first
        self.features: dict[tuple[int, ...], Tensor] = {}  # of every prompt in the archive
        self._judged = 0  # rows that the perplexity model ran
        self._made_by: dict[tuple[int, ...], str] = {}  # the step's proposals: which move made them
        self._dropped: Counter[str] = Counter()  # the step's proposals: by the constraint that they break
        places = screening_rounds(train, config.screening_examples, config.seed)
        self._rounds = [(rows, train if rows is None else train.subset(rows)) for rows in places]

    # -- a step ---------------------------------------------------------------------------------------------------

    def step(self, step: int, count: int, starts: Sequence[Sequence[int]] = ()) -> dict[str, float]:
        """Score `count` new prompts and keep the population.

        Args:
            step: with the seed it decides what is drawn.
            count: prompts of all processes.
            starts: prompts to begin with, which are scored whatever they are like; the first step's only.

        Returns:
            What the step is logged with.

        Raises:
            ValueError: a reward that is not a number, or no prompt to start from.
        """
        self._made_by, self._dropped = {}, Counter()
        new = self._first(starts, count, step) if not self.members else self._chosen(step, count)
        new = self._agreed(new)
        if not new:
            return {"reward": self._mean_reward(), "new_in_population": 0.0} | self._yields([]) | self._spent()
        known = [self._first_score(c.ids) is not None for c in new]
        self._read([c.ids for c in new])
        found = self._scored(new, step)
        self.measure_from(found)
        whole = [record for record in found if record.rows is None and record.fits]
        self._keep({record.ids for record in whole})
        kept = sum(record.ids in self.members for record in whole)
        shares = {"new_in_population": kept / max(1, len(new))} | self._yields(new)
        return self.metrics(found, new, known) | shares | self._spent()

    @property
    def prompt_passes(self) -> int:
        """See the class."""
        return self.proposer.passes + self._judged

    def _spent(self) -> dict[str, float]:
        return {"evaluations_max": float(self.evaluations), "prompt_passes_max": float(self.prompt_passes)}

    def _yields(self, new: Sequence[Candidate]) -> dict[str, float]:
        """Of each move's prompts that were scored, the share in the population; what each constraint dropped."""
        made: dict[str, list[bool]] = {}
        for candidate in new:
            if name := self._made_by.get(candidate.ids):
                made.setdefault(name, []).append(candidate.ids in self.members)
        proposed = len(self._made_by) + self._dropped.total()
        return {f"yield/{name}": mean(kept) for name, kept in made.items()} | {
            f"dropped/{name}": count / proposed for name, count in self._dropped.items()
        }

    def score(
        self,
        candidates: Sequence[Candidate],
        examples: Examples,
        step: int,
        split: str = "train",
        rows: tuple[int, ...] | None = None,
    ) -> list[ScoredPrompt]:
        """As `ScoredSearch.score`; the perplexity model's passes over what is not looked up are counted."""
        before = len(self.archive)
        found = super().score(candidates, examples, step, split, rows)
        self._judged += len(self.archive) - before
        return found

    def candidate(self, ids: Sequence[int]) -> Candidate:
        """The prompt that these ids are as text; it fits with any length that the adapter may have."""

        def fits(again: Sequence[int]) -> bool:
            return bool(self.allowed[list(again)].all()) and self.proposer.settings.fits(len(again))

        return place_candidate(self.scorer.task.tokenizer, ids, self.beside, fits)

    def _first(self, starts: Sequence[Sequence[int]], count: int, step: int) -> list[Candidate]:
        """The given prompts, and the language model's own words where there are too few."""
        given = list(dict.fromkeys(self.candidate(ids) for ids in starts if len(ids)))
        usable = [c.ids for c in given if c.fits] or [c.ids for c in given]
        for attempt in range(ATTEMPTS):
            if len(given) >= count or (attempt and any(c.fits for c in given)):
                break
            made = self.proposer.opened(usable, 4 * count, seed=self._seed(step) + attempt)
            given += [c for c in self._acceptable(made) if c not in given][: count - len(given)]
        if not given:
            dropped = self._dropped.most_common(1)
            raise ValueError(
                "there is no prompt to start from: the language model made none that the adapter can hold"
                + (f" and that keeps the constraint {dropped[0][0]!r}, which most break. " if dropped else ". ")
                + "Give `start_texts`, raise `num_virtual_tokens`, or loosen `allowed_tokens` or the constraints."
            )
        return given

    def _chosen(self, step: int, count: int) -> list[Candidate]:
        """The most promising proposals, half of them as fluent as asked for, and some at random."""
        candidates: list[Candidate] = []
        for attempt in range(ATTEMPTS):
            wanted = count * self.config.proposals_per_prompt
            made = self.proposer.propose(self.members, wanted, self._seed(step) + attempt)
            candidates += [c for c in self._acceptable(made) if c not in candidates]
            if len(candidates) >= count:
                break
        if len(candidates) <= count:
            return candidates
        promise = self._promise(candidates, step)
        within = [i for i in range(len(candidates)) if self.scale.within(-promise[i, 1].item())]
        within.sort(key=lambda i: -promise[i, 0].item())
        sure = count - round(self.config.exploration * count)
        order = list(dict.fromkeys([*within[: sure // 2], *best_order(promise)]))
        rest = Random(self._seed(step) + 1).sample(order[sure:], count - sure)
        return [candidates[i] for i in [*order[:sure], *rest]]

    def _agreed(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The first process's prompts, should the processes' arithmetic differ."""
        if self.processes.count == 1:
            return list(candidates)
        longest = max((len(c.ids) for c in candidates), default=1)
        size = self.processes.agree(torch.tensor([len(candidates), longest]))
        ids = torch.full(tuple(size.tolist()), -1)
        for row, candidate in zip(ids, candidates, strict=False):
            kept = candidate.ids[: len(row)]
            row[: len(kept)] = torch.tensor(kept)
        rows = self.processes.agree(ids).tolist()
        return [self.candidate([i for i in row if i >= 0]) for row in rows]

    def _promise(self, candidates: Sequence[Candidate], step: int) -> Tensor:
        """(candidates, 2) guessed reward, with noise that keeps the search open, and fluency; more is better."""
        ids = [c.ids for c in candidates]
        reading = self._read(ids)
        if self.scale.separate_model:
            reading = self.scorer.nlls(candidates)
            self._judged += len(candidates)
        fluent = self.scale.value(reading)
        generator = torch.Generator().manual_seed(self._seed(step))
        noise = torch.randn(len(ids), generator=generator, dtype=torch.float64)
        records = self._round_records()
        if not self.config.use_surrogate or len(records) < LEAST_KNOWN:
            return torch.stack((noise, fluent), 1)
        known = torch.stack([self.features[record.ids] for record in records])
        rewards = torch.tensor([self.scorer.reward(record.scores) for record in records])
        fitted = fit_surrogate(known, rewards)
        guess = fitted.guess(torch.stack([self.features[i] for i in ids]))
        return torch.stack((guess + EXPLORING_NOISE * fitted.error * noise, fluent), 1)

    def _acceptable(self, proposals: Sequence[tuple[str, Sequence[int]]]) -> list[Candidate]:
        """New prompts that the adapter can hold, that come back from text as they are, and keep all constraints."""
        found: dict[tuple[int, ...], tuple[Candidate, str]] = {}
        for move, ids in proposals:
            candidate = self.candidate(ids)
            if candidate.ids not in found and candidate.fits and self._first_score(candidate.ids) is None:
                found[candidate.ids] = candidate, move
        broken = self.constraints.broken([candidate for candidate, _ in found.values()])
        self._dropped.update(name for name in broken if name)
        kept = [pair for pair, name in zip(found.values(), broken, strict=True) if not name]
        self._made_by |= {candidate.ids: move for candidate, move in kept}
        return [candidate for candidate, _ in kept]

    def _read(self, prompts: Sequence[tuple[int, ...]]) -> list[float | None]:
        """NLL under the proposing language model; features are kept."""
        reading = self.proposer.read(prompts)
        self.features |= dict(zip(prompts, reading.features, strict=True))
        return [None if math.isnan(nll) else nll for nll in reading.nll.tolist()]

    def _scored(self, candidates: Sequence[Candidate], step: int) -> list[ScoredPrompt]:
        """Scores on more and more examples; each round goes on with the better half."""
        found: dict[tuple[int, ...], ScoredPrompt] = {}
        left = list(candidates)
        for rows, examples in self._rounds:
            records = self.score(left, examples, step, rows=rows)
            found |= {record.ids: record for record in records}
            order = best_order(self.points(records))
            left = [left[i] for i in sorted(order[: math.ceil(len(order) / 2)])]
        return list(found.values())

    def _round_records(self) -> list[ScoredPrompt]:
        """One record of every scored prompt that has a reward, on the same examples."""
        rows, _ = self._rounds[0]
        known = [r for r in self.archive.records if r.split == "train" and r.rows == rows]
        return [r for r in known if self.scorer.applies(r.scores)]

    def _first_score(self, ids: tuple[int, ...]) -> ScoredPrompt | None:
        rows, _ = self._rounds[0]
        return self.archive.find(ids, rows=rows)

    def _mean_reward(self) -> float:
        records = [record for i in self.members if (record := self.archive.find(i)) is not None]
        return mean([self.scorer.reward(record.scores) for record in records])

    def _keep(self, new: set[tuple[int, ...]]) -> None:
        """The population: the best by non-dominated sorting, a quarter of it the best within reach of the target."""
        ids = list(dict.fromkeys([*self.members, *sorted(new)]))
        records = [record for i in ids if (record := self.archive.find(i)) is not None]
        size = self.config.population_size
        order = best_order(self.points(records))
        within = [i for i in range(len(records)) if self.scale.within(records[i].scores["nll"])]
        within.sort(key=lambda i: -self.scorer.reward(records[i].scores))
        reserved = within[: size // 4]
        kept = [*reserved, *[i for i in order if i not in reserved]][:size]
        self.members = [records[i].ids for i in order if i in set(kept)]
        wanted = {record.ids for record in self.archive.records}
        self.features = {ids: vector for ids, vector in self.features.items() if ids in wanted}

    def _seed(self, step: int) -> int:
        return Random(f"{self.config.seed}-{step}").getrandbits(62)

    def promising(self, count: int) -> list[Candidate]:
        """The best of the population that no evaluation has seen; those within the target first."""
        new = [i for i in self.members if self.archive.find(i, "dev") is None]
        records = [record for i in new if (record := self.archive.find(i)) is not None]
        within = [r for r in records if self.scale.within(r.scores["nll"])]
        within.sort(key=lambda r: -self.scorer.reward(r.scores))
        first = within[: count // 2]
        ordered = [*first, *[r for r in records if r not in first]][:count]
        return [Candidate(r.ids, r.text, True, True) for r in ordered]

    # -- keeping --------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs besides the archive."""
        ids = list(self.features)
        return super().state() | {
            "members": [list(member) for member in self.members],
            "worst_rewards": dict(self.worst),
            "prompt_passes": self.prompt_passes,
            "feature_ids": [list(i) for i in ids],
            "features": torch.stack([self.features[i] for i in ids]) if ids else torch.zeros(0, 0),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        super().load_state(state)
        self.members = [tuple(member) for member in state["members"]]
        before = state.get("worst_reward")  # the training data's alone, in older checkpoints
        self.worst = dict(state.get("worst_rewards") or ({} if before is None else {"train": before}))
        self.proposer.passes, self._judged = state.get("prompt_passes", 0), 0
        self.features = dict(zip(map(tuple, state["feature_ids"]), state["features"], strict=True))
