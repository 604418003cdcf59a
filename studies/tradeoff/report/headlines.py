"""The study's answer in a few sentences, computed like everything else."""

from __future__ import annotations

from collections.abc import Sequence

from studies.tradeoff.outcomes import (
    SEARCHED,
    VECTORS,
    Outcome,
    at_human_level,
    families,
    groups,
    no_prompt,
    over_units,
    select,
    volumes,
)
from studies.tradeoff.patterns import IGNORED_MARGIN
from studies.tradeoff.statistics import paired

_NAMED = 3


def headlines(outcomes: Sequence[Outcome]) -> list[str]:
    """One sentence for each task, and one on the fronts; none where the runs for it are missing."""
    found = []
    for task, own in groups(outcomes, lambda o: o.task).items():
        human = {family: values for family in _searched(own) if (values := at_human_level(own, family))}
        most = max(map(len, human.values()), default=0)
        human = {family: values for family, values in human.items() if 2 * len(values) > most}  # one run ranks nothing
        if not human:
            continue
        means = {family: sum(values.values()) / len(values) for family, values in human.items()}
        best = sorted(means, key=lambda family: -means[family])[:_NAMED]
        nothing = no_prompt(own)
        said = ", then ".join(f"{family} {means[family]:.1%}" for family in best)
        if nothing and means[best[0]] <= sum(nothing.values()) / len(nothing) + IGNORED_MARGIN:
            said = "no search has a prompt that helps"
        found.append(f"{task}: as fluent as people write, {said}{_written(own, best[0])}{_vectors(own)}.")
    return [*found, *_largest_front(outcomes)]


def _searched(outcomes: Sequence[Outcome]) -> list[str]:
    return families(o for o in outcomes if o.method in SEARCHED)


def _written(outcomes: Sequence[Outcome], best: str) -> str:
    """What people wrote for the task, beside the best search."""
    written = select(outcomes, method="written")
    if not written:
        return ""
    by_hand = at_human_level(outcomes, written[0].family)
    compared = paired(at_human_level(outcomes, best), by_hand)
    difference = ""
    if compared is not None:
        low, high = 100 * compared.low, 100 * compared.high
        around = (
            "" if compared.n == 1 else f", {low:+.1f} to {high:+.1f}" if low < high else ", the same on every split"
        )
        difference = f" ({best} less that: {100 * compared.difference:+.1f} points{around})"
    return f"; written for the task {sum(by_hand.values()) / len(by_hand):.1%}{difference}"


def _vectors(outcomes: Sequence[Outcome]) -> str:
    soft = _best_vectors(outcomes)
    return f"; {soft[0]}, which nobody can read, {soft[1]:.1%}" if soft else ""


def _best_vectors(outcomes: Sequence[Outcome]) -> tuple[str, float] | None:
    means = {
        family: over_units(own, lambda o: o.accuracy) or 0.0
        for family, own in groups(select(outcomes, method=VECTORS, role="chosen"), lambda o: o.family).items()
    }
    return max(means.items(), key=lambda item: item[1]) if means else None


def _largest_front(outcomes: Sequence[Outcome]) -> list[str]:
    """The two families that cover most, with one run each, of those that were run wherever any was."""
    found = {family: volumes(outcomes, family, per_run=True) for family in _searched(outcomes)}
    most = max((len(values) for values in found.values()), default=0)
    means = {family: sum(values.values()) / most for family, values in found.items() if most and len(values) == most}
    if len(means) < 2:
        return []
    first, second = sorted(means, key=lambda family: -means[family])[:2]
    compared = paired(found[first], found[second])
    if compared is None:
        return []
    around = f", {compared.low:.3f} to {compared.high:.3f}, n {compared.n}" if compared.n > 1 else ""
    said = f"difference {compared.difference:.3f}{around}"
    return [
        f"Front of one run: {first} covers most ({means[first]:.3f} of 1), then {second} ({means[second]:.3f}; {said})."
    ]
