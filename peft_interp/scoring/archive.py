"""Every prompt that was scored, with its scores: the cache of rewards, a file of JSON lines, and its trade-off."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from peft_interp.records import short_repr
from peft_interp.scoring.rewards import new_names

Scores = dict[str, float | None]


@dataclass(frozen=True, repr=False)
class ScoredPrompt:
    """One prompt and what it got.

    Attributes:
        ids: token ids of the task model.
        text: as a person reads it.
        step: the optimizer step that scored it first.
        scores: every reward and measure by name; None where a reward does not apply.
        fits: whether it may be chosen: the adapter can hold it, and some reward of the task applies to it.
        split: "train", or "dev" for the held-out scores.
        rows: places of the examples it was scored on; None for all of them.
    """

    ids: tuple[int, ...]
    text: str
    step: int
    scores: Scores
    fits: bool = True
    split: str = "train"
    rows: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        on = "all" if self.rows is None else len(self.rows)
        shown = {"text": self.text, "split": self.split, "rows": on, "step": self.step, "fits": self.fits}
        return short_repr("ScoredPrompt", **shown, scores=self.scores, ids=self.ids)


class Archive:
    """All scored prompts of a run, in the order they were scored.

    `path` is the file that `write` appends to.
    """

    def __init__(self, records: Iterable[ScoredPrompt] = ()) -> None:
        self.records: list[ScoredPrompt] = []
        self._found: dict[tuple[object, ...], ScoredPrompt] = {}
        for record in records:
            self.add(record)
        self._written = len(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        prompts = len({record.ids for record in self.records})
        return short_repr("Archive", records=len(self), prompts=prompts, last=self.records[-1:])

    def add(self, record: ScoredPrompt) -> None:
        """Remember a prompt; a second score on the same examples replaces the first in lookups."""
        self.records.append(record)
        self._found[record.split, record.ids, record.rows] = record

    def find(
        self, ids: Sequence[int], split: str = "train", rows: tuple[int, ...] | None = None
    ) -> ScoredPrompt | None:
        """What this prompt got on these examples, or None."""
        return self._found.get((split, tuple(ids), rows))

    def write(self, path: Path) -> None:
        """Append what is new, one JSON object a line; it is on the disk when this returns."""
        new = self.records[self._written :]
        if not new:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(record)) + "\n" for record in new)
            file.flush()
            os.fsync(file.fileno())
        self._written = len(self.records)

    @classmethod
    def read(cls, path: Path) -> Archive:
        """A written archive; a last line cut off by a crash is left out.

        Raises:
            ValueError: a damaged line elsewhere.
        """
        lines = path.read_text(encoding="utf-8").splitlines()
        records = []
        for number, line in enumerate(lines):
            try:
                fields = json.loads(line)
            except json.JSONDecodeError as error:
                if number == len(lines) - 1:
                    break
                raise ValueError(f"line {number + 1} of {path} is damaged; remove it.") from error
            fields["scores"] = new_names(fields["scores"])
            fields["ids"] = tuple(fields["ids"])
            fields["rows"] = None if fields["rows"] is None else tuple(fields["rows"])
            records.append(ScoredPrompt(**fields))
        return cls(records)


def front(
    records: Iterable[ScoredPrompt], higher: Sequence[str] = (), lower: Sequence[str] = (), split: str = "dev"
) -> list[ScoredPrompt]:
    """The prompts that no other beats in everything: the accuracy/readability trade-off of one run.

    Args:
        records: `archive.records`.
        higher: scores of which more is better ("accuracy").
        lower: scores of which less is better ("nll").
        split: "dev" for prompts that an evaluation scored, "train" for those scored on all training examples.

    Returns:
        Non-dominated prompts, best in the first named score first. Left out are prompts without all these scores, those
        that may not be chosen (`fits`), and scores on a part of the examples, which do not compare.

    Raises:
        ValueError: no score is named.
    """
    if not higher and not lower:
        raise ValueError("name at least one score: `higher=('accuracy',), lower=('nll',)`.")
    points: dict[tuple[float, ...], ScoredPrompt] = {}
    for record in records:
        values = [record.scores.get(name) for name in (*higher, *lower)]
        comparable = record.split == split and record.rows is None and record.fits
        if comparable and all(value is not None for value in values):
            signed = [v if i < len(higher) else -v for i, v in enumerate(values) if v is not None]
            points.setdefault(tuple(signed), record)
    best: list[tuple[float, ...]] = []
    for point in sorted(points, reverse=True):  # nothing after a point in this order can dominate it
        if not any(all(a >= b for a, b in zip(other, point, strict=True)) for other in best):
            best.append(point)
    return [points[point] for point in best]
