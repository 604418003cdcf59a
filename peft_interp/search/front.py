"""`FrontSearch`: a search that keeps the front of reward and fluency, and knows which of its prompts is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from peft_interp.metrics.references import human_perplexity, reference_levels
from peft_interp.scoring.archive import ScoredPrompt, Scores
from peft_interp.scoring.candidates import Candidate
from peft_interp.scoring.choice import Contender, most_readable
from peft_interp.scoring.examples import Examples
from peft_interp.scoring.pareto import hypervolume, knee, pareto_front
from peft_interp.scoring.prompt_scorer import PromptScorer
from peft_interp.scoring.scored_search import Best, Processes, ScoredSearch
from peft_interp.search.constraints import Constraints

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FLOOR_PERCENT = 10


@dataclass(frozen=True)
class FluencyScale:
    """Levels of NLL under the perplexity model, nats per token.

    Attributes:
        floor: below this more fluent is not better: only a tenth of human-written prompts are below, and what is far
            below is repetition and boilerplate. A target that is lower lowers it.
        usual: the median of human-written prompts.
        random: the median of random tokens.
        target: the most a chosen prompt may have; None for no target.
        separate_model: the perplexity model is not the model that proposes.
    """

    floor: float
    usual: float
    random: float
    target: float | None
    separate_model: bool = False

    def value(self, nlls: Sequence[float | None]) -> Tensor:
        """(n,) float64 fluency, higher is better: the negative NLL, cut at the floor; unknown counts as random."""
        known = [self.random if nll is None else nll for nll in nlls]
        return -torch.tensor(known, dtype=torch.float64).clamp_min(self.floor)

    def within(self, nll: float | None) -> bool:
        """Whether an NLL is within the target; within the median human-written prompt's where there is none."""
        return nll is not None and nll <= (self.usual if self.target is None else self.target)


def fluency_scale(
    perplexity_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    perplexity: float | None,
    percentile: float | None,
    separate_model: bool,
) -> FluencyScale:
    """Measure the scale.

    Args:
        perplexity_model: the causal LM that says how likely a prompt is.
        tokenizer: its tokenizer.
        perplexity: the target, > 1, or None.
        percentile: the same as a share of human-written prompts, 0 to 100: at most so many are as likely or likelier.
        separate_model: as `FluencyScale`.

    Raises:
        ValueError: a perplexity model without a next-token head.
    """
    floor, usual = (math.log(human_perplexity(perplexity_model, tokenizer, percent)) for percent in (FLOOR_PERCENT, 50))
    random = reference_levels(perplexity_model, tokenizer).medians("nll")["random"] or math.inf
    if percentile is not None:
        perplexity = human_perplexity(perplexity_model, tokenizer, percentile)
    target = None if perplexity is None else math.log(perplexity)
    return FluencyScale(floor if target is None else min(floor, target), usual, random, target, separate_model)


class FrontSearch(ScoredSearch):
    """What is in the front does not depend on how prompts are proposed.

    Args:
        scale: what a prompt's NLL means.
        constraints: what a prompt must be to be in the front.
        scorer, train, processes, archive_path: as `ScoredSearch`.
    """

    def __init__(
        self,
        scale: FluencyScale,
        constraints: Constraints,
        scorer: PromptScorer,
        train: Examples,
        processes: Processes | None = None,
        archive_path: Path | None = None,
    ) -> None:
        super().__init__(scorer, train, processes, archive_path)
        self.scale, self.constraints = scale, constraints
        self.worst: dict[str, float] = {}  # by split, of what was scored there first; see `hypervolume`

    def front(self, split: str) -> list[ScoredPrompt]:
        """The prompts that no other beats in both reward and fluency, best reward first.

        Args:
            split: "dev", or "train" for those scored on all training examples.
        """
        records = [r for r in self.archive.records if r.split == split and r.rows is None and r.fits]
        records = [r for r in records if r.scores.get("nll") is not None]
        records = [r for r, kept in zip(records, self.constraints.kept(records), strict=True) if kept]
        if not records:
            return []
        best = [records[i] for i in pareto_front(self.points(records)[:, :2])]
        unique = {(self.scorer.reward(r.scores), r.scores["nll"]): r for r in best}
        return sorted(unique.values(), key=lambda r: (-self.scorer.reward(r.scores), r.scores["nll"] or 0.0))

    def chosen(self, front: Sequence[ScoredPrompt]) -> ScoredPrompt | None:
        """The prompt for the adapter: the best within the target, or the knee; None for an empty front.

        On held-out examples, one that is more fluent takes its place if its reward is within one standard error (see
        `scoring.choice`). Where no prompt reaches the target, the most fluent one.
        """
        if not front:
            return None
        within = [record for record in front if self.scale.within(record.scores["nll"])]
        if self.scale.target is None:
            within = list(front)
        elif not within:
            return min(front, key=lambda record: record.scores["nll"] or math.inf)
        best = knee(self.points(within)[:, :2]) if self.scale.target is None else 0
        if within[best].split != "dev":
            return within[best]
        return within[most_readable([self.contender(record) for record in within], best)]

    def contender(self, record: ScoredPrompt) -> Contender:
        """As the base's; below the scale's floor more fluent is not better."""
        nll = record.scores.get("nll")
        found = replace(super().contender(record), nll=None if nll is None else max(nll, self.scale.floor))
        return replace(found, flagged=False)  # the front holds none that is

    def hypervolume(self, front: Sequence[ScoredPrompt]) -> float:
        """Hypervolume in reward times nats per token, from the split's first worst reward and random tokens' NLL on."""
        if not front or front[0].split not in self.worst:
            return 0.0
        reference = torch.tensor([self.worst[front[0].split], -self.scale.random], dtype=torch.float64)
        return hypervolume(self.points(front)[:, :2], reference)

    def measure_from(self, records: Sequence[ScoredPrompt]) -> None:
        """Where the area of their split's front begins: the worst reward of the first records that this is told."""
        known = [record for record in records if self.scorer.applies(record.scores)]
        if known:
            self.worst.setdefault(known[0].split, min(self.scorer.reward(record.scores) for record in known))

    def beginning(self) -> list[Candidate]:
        """The prompt that the run started from, the first in the archive; empty where nothing is scored yet."""
        return [Candidate(r.ids, r.text, True, r.fits) for r in self.archive.records[:1]]

    def shortfall(self, front: Sequence[ScoredPrompt]) -> str | None:
        """What a run has not delivered, and what to do; None where there is a prompt as asked for."""
        if not front:
            return (
                f"none of the {len({record.ids for record in self.archive.records})} prompts that were scored can be "
                "read and held by the adapter and keeps every constraint: the front is empty, and the adapter keeps "
                "the prompt it had. Let prompts have what sentences need (`allowed_tokens='printable'` of "
                "`InterpPromptConfig`), let them have words that no dictionary has (`known_words=False`), ask for less "
                "(the log's `dropped/...` say which constraint drops how many), give `start_texts`, or search for more "
                "steps (`max_steps`)."
            )
        target, found = self.scale.target, min(record.scores["nll"] or 0.0 for record in front)
        if target is None or found <= target:
            return None
        return (
            f"no readable prompt within the target, a perplexity of {math.exp(target):.4g} at most, was found; the "
            f"adapter has the most fluent one, of perplexity {math.exp(found):.4g}. Search for more steps "
            "(`max_steps`), set another `max_perplexity` or `target_percentile`, or allow more prompts "
            "(`allowed_tokens='printable'`, `known_words=False`, a larger `longest_prompt`)."
        )

    def total(self, scores: Scores) -> float:
        """The task's reward."""
        return self.scorer.reward(scores)

    def adopt(self, record: ScoredPrompt) -> bool:
        """Make a prompt the best one; returns whether prompt, score or split was another before."""
        before, reward = self.best, self.scorer.reward(record.scores)
        asked = "knee of the front" if self.scale.target is None else "best reward within the target"
        held_out = ", or the most fluent within one standard error of it, on validation rows"
        words = f"the {asked}{held_out if record.split == 'dev' else ', on training rows'}"
        self.best = Best(record.ids, record.text, reward, reward, record.split, words)
        return before != self.best

    def points(self, records: Sequence[ScoredPrompt]) -> Tensor:
        """(records, 3) reward, fluency, absence of repetition; more is better."""
        reward = torch.tensor([self.scorer.reward(r.scores) for r in records], dtype=torch.float64)
        fluent = self.scale.value([r.scores["nll"] for r in records])
        repeated = torch.tensor([-(r.scores["repetition_penalty"] or 0.0) for r in records], dtype=torch.float64)
        return torch.stack((reward, fluent, repeated), 1)
