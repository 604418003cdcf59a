"""Which runs of a method may be compared: with and without the objective, at one budget, where it learned something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from studies.tradeoff.claims.claim import NOTICEABLE
from studies.tradeoff.outcomes import Outcome, Unit, groups, no_prompt, over_units, select, variant


@dataclass(frozen=True)
class FairRuns:
    """Runs of a method that a verdict may rest on.

    Attributes:
        runs: with and without the objective, in each task those of the largest budget that both had.
        left_out: why other tasks have no part, by task.
    """

    runs: list[Outcome]
    left_out: dict[str, str]

    def __str__(self) -> str:
        """What was left out, in a sentence; "" of nothing."""
        said = [
            f"{', '.join(t for t in self.left_out if self.left_out[t] == why)} ({why})"
            for why in dict.fromkeys(self.left_out.values())
        ]
        return f"Left out: {'; '.join(said)}." if said else ""


def fair_runs(outcomes: Sequence[Outcome], method: str) -> FairRuns:
    """A method's runs on the tasks where it learned something without the objective."""
    empty, found, left_out = no_prompt(outcomes), [], {}
    for task, own in groups(select(outcomes, method=method), lambda o: o.task).items():
        shared = {o.budget for o in own if not o.plain} & {o.budget for o in own if o.plain}
        runs = [o for o in own if shared and o.budget == max(shared)]
        gain = _gain([o for o in runs if o.plain and o.role == "chosen"], empty)
        if not shared:
            left_out[task] = "no runs with and without the objective at one budget"
        elif gain is None:
            left_out[task] = "no run without a prompt"
        elif gain < NOTICEABLE:
            left_out[task] = f"plain runs gain less than {100 * NOTICEABLE:.0f} points"
        else:
            found += runs
    return FairRuns(found, left_out)


def _gain(outcomes: Sequence[Outcome], empty: Mapping[Unit, float]) -> float | None:
    """Mean accuracy above no prompt's; None where that is not known."""
    return over_units(outcomes, lambda o: o.accuracy - empty[o.unit] if o.unit in empty else None)


def plain_runs(outcomes: Sequence[Outcome], method: str, like: Sequence[Outcome]) -> list[Outcome]:
    """For each of these runs one without objective on the same task, split and seed, at the same budget.

    If there is one of the same variant ("..., whole vocabulary", or the main form), it is that; else the first.
    """
    found: dict[tuple[Unit, int, int], Outcome] = {}
    plain = select(outcomes, method=method, plain=True, role="chosen")
    alike = [o for o in plain if like and variant(o) == variant(like[0])]
    for outcome in [*alike, *plain]:
        found.setdefault((outcome.unit, outcome.seed, outcome.budget), outcome)
    return [found[place] for place in dict.fromkeys((o.unit, o.seed, o.budget) for o in like) if place in found]
