"""Every prompt that was scored, with its scores: the cache of rewards, a file of JSON lines, and its trade-off."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from peft_interp.records import short_repr
from peft_interp.scoring.rewards import new_names

Scores = dict[str, float | None]


@dataclass(frozen=True, repr=False)
class ScoredPrompt:
    """One prompt with its scores.

    Attributes:
        ids: token ids of the task model.
        text: as a person reads it.
        step: the optimizer step that scored it first.
        scores: every reward and measure by name; None where a reward does not apply.
        fits: whether it may be chosen: the adapter can hold it, and some reward of the task applies to it.
        split: "train", or "dev" for the held-out scores; "failed" for what was known of a prompt when a reward failed,
            which is never looked up.
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
        """This prompt's scores on these examples, or None."""
        return self._found.get((split, tuple(ids), rows))

    def write(self, path: Path) -> None:
        """Append what is new, one JSON object a line; it is on the disk when this returns.

        A line that an earlier writing left without its end (a full disk, a kill) stays alone on its line.
        """
        new = self.records[self._written :]
        if not new:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            if file.tell() and _last_byte(file) != b"\n":
                file.write(b"\n")
            file.write("".join(json.dumps(asdict(record)) + "\n" for record in new).encode())
            file.flush()
            os.fsync(file.fileno())
        self._written = len(self.records)

    @classmethod
    def read(cls, path: Path) -> Archive:
        """A written archive. Damaged lines, which a kill or a full disk leaves, are left out with a warning.

        The prompts that stood on them are scored again when the search comes to them.
        """
        lines = path.read_bytes().splitlines()
        found = [(number, _record(line)) for number, line in enumerate(lines, start=1) if line.strip()]
        if damaged := [number for number, record in found if record is None]:
            shown = ", ".join(map(str, damaged[:5])) + (", ..." if len(damaged) > 5 else "")
            warnings.warn(
                f"{len(damaged)} of {len(found)} lines of {str(path)!r} are damaged and left out (line {shown}).",
                stacklevel=2,
            )
        return cls(record for _, record in found if record is not None)


def _record(line: bytes) -> ScoredPrompt | None:
    """A line as `write` makes it; None for anything else."""
    try:
        fields = json.loads(line)
        fields["scores"] = new_names(fields["scores"])
        fields["ids"] = tuple(fields["ids"])
        fields["rows"] = None if fields["rows"] is None else tuple(fields["rows"])
        return ScoredPrompt(**fields)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _last_byte(file: BinaryIO) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)


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
