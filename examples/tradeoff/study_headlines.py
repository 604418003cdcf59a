"""The study's answer in a few sentences, computed like everything else."""

from __future__ import annotations

from collections.abc import Sequence

from prompt_patterns import IGNORED_MARGIN
from study_outcomes import Outcome, at_human_level, families, groups, no_prompt, select, volumes
from study_statistics import paired

_TRAINED = ("pez", "rlprompt", "search", "random_search")
_VECTORS = ("prompt_tuning", "p_tuning", "prefix_tuning")


def headlines(outcomes: Sequence[Outcome]) -> list[str]:
    """One sentence for each task, and one on the fronts; none where the runs for it are missing."""
    found = []
    for task, own in groups(outcomes, lambda o: o.task).items():
        human = {family: at_human_level(own, family) for family in _trained(own)}
        means = {family: sum(values.values()) / len(values) for family, values in human.items() if values}
        if not means:
            continue
        best = max(means, key=lambda family: means[family])
        soft, nothing = _best_vectors(own), no_prompt(own)
        beside = f"; {soft[0]}, which nobody can read, reaches {soft[1]:.1%}" if soft else ""
        said = f"the best method is {best} with {means[best]:.1%}"
        if nothing and means[best] <= sum(nothing.values()) / len(nothing) + IGNORED_MARGIN:
            said = "no method has a prompt that helps"
        found.append(f"{task}: as fluent as people write, {said}{beside}.")
    return [*found, *_largest_front(outcomes)]


def _trained(outcomes: Sequence[Outcome]) -> list[str]:
    return families(o for o in outcomes if o.method in _TRAINED)


def _best_vectors(outcomes: Sequence[Outcome]) -> tuple[str, float] | None:
    means = {
        family: sum(o.accuracy for o in own) / len(own)
        for family, own in groups(select(outcomes, method=_VECTORS, role="chosen"), lambda o: o.family).items()
    }
    return max(means.items(), key=lambda item: item[1]) if means else None


def _largest_front(outcomes: Sequence[Outcome]) -> list[str]:
    """The two families that cover most, with one run each, on the tasks and splits that both have."""
    found = {family: values for family in _trained(outcomes) if (values := volumes(outcomes, family, per_run=True))}
    means = {family: sum(values.values()) / len(values) for family, values in found.items()}
    if len(means) < 2:
        return []
    first, second = sorted(means, key=lambda family: -means[family])[:2]
    compared = paired(found[first], found[second])
    if compared is None:
        return []
    said = f"difference {compared.difference:.3f}, {compared.low:.3f} to {compared.high:.3f}, n {compared.n}"
    return [
        f"Front of one run: {first} covers most ({means[first]:.3f} of 1), then {second} ({means[second]:.3f}; {said})."
    ]
