"""`ScoredSearch`: what every search for prompts keeps: scored prompts, the best of them, and how processes share work.

Nothing here depends on the number of processes. Each scores its share of what is new and receives the others' scores,
so that two processes do what one with twice the prompts does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from peft_interp.scoring.archive import Archive, ScoredPrompt, Scores
from peft_interp.scoring.candidates import Candidate
from peft_interp.scoring.examples import Examples
from peft_interp.scoring.prompt_scorer import PromptScorer
from peft_interp.scoring.selection import Best, mean, std


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
        position: "start" or "end".
        processes: those that search together.
        archive_path: file of the archive; None for processes that do not write it.
    """

    def __init__(
        self,
        scorer: PromptScorer,
        train: Examples,
        position: str,
        processes: Processes | None = None,
        archive_path: Path | None = None,
    ) -> None:
        self.scorer, self.train, self.position = scorer, train, position
        self.processes = processes or Processes()
        self.archive, self.archive_path = Archive(), archive_path
        self.best: Best | None = None
        self.evaluations = 0  # prompt-example pairs that were run so far, by all processes
        self.trainer_state: Any = None
        self.following_text = _beginning(train, scorer)

    def candidate(self, ids: Sequence[int]) -> Candidate:
        """The prompt that these ids of the task model are as text."""
        raise NotImplementedError

    def total(self, scores: Scores) -> float:
        """One number for a prompt, comparable over the whole run."""
        raise NotImplementedError

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
        self.evaluations += len(fresh) * len(examples)
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

    def metrics(
        self, found: Sequence[ScoredPrompt], candidates: Sequence[Candidate], known: Sequence[bool]
    ) -> dict[str, float]:
        """What a step is logged with: rewards and measures, and shares of `candidates`, `known` ones looked up."""
        raw = [self.scorer.reward(record.scores) for record in found]
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
        """Let prompts compete for the best; held-out scores count more than any training score."""
        before = self.best
        for record in records:
            best = Best(
                record.ids, record.text, self.total(record.scores), self.scorer.reward(record.scores), record.split
            )
            if record.fits and best.beats(self.best):
                self.best = best
        return self.best is not before

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs besides the archive."""
        best = None if self.best is None else {**asdict(self.best), "ids": list(self.best.ids)}
        return {"best": best, "evaluations": self.evaluations}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        best, self.evaluations = state["best"], state["evaluations"]
        self.best = None if best is None else Best(**{**best, "ids": tuple(best["ids"])})


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
