"""What a method hands back: one prompt to be judged by, and whatever else it found on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peft_interp.scoring.archive import ScoredPrompt

if TYPE_CHECKING:
    from study_bench import Bench


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
