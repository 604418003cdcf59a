"""The paper's claims on perplexity as an objective: what it costs, whether it converges, and how it is fooled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from studies.tradeoff.claims.claim import (
    CONFIRMED,
    FEWEST,
    NOTICEABLE,
    PARTLY,
    RARE,
    REFUTED,
    SIGNIFICANT,
    UNTESTED,
    Claim,
    in_p,
    in_points,
    verdict_of,
)
from studies.tradeoff.claims.fair_runs import FairRuns, fair_runs, plain_runs
from studies.tradeoff.outcomes import Outcome, by_unit, families, groups, is_fluent, no_prompt, over_units, select
from studies.tradeoff.patterns import is_ignored, pattern
from studies.tradeoff.statistics import Paired, holm, paired, rank_correlation

RLPROMPT_STEPS = 12_000  # as published


def readability_costs_accuracy(outcomes: Sequence[Outcome], method: str, name: str) -> Claim:
    """The objective against the plain method, weight by weight."""
    statement = f"A perplexity objective on {name} makes prompts more fluent and costs task performance."
    rule = (
        "some weight lowers log-perplexity and also accuracy by 2 points or more, both p < 0.05 (paired t-test, Holm's "
        "correction over all weights and variants), on tasks where the plain method learned something; partly: more "
        "fluent, and no such cost was shown, which is not to say that there is none"
    )
    fair, compared = fair_runs(outcomes, method), []
    for family in families(o for o in fair.runs if o.weight):
        for weight in sorted({o.weight for o in select(fair.runs, family=family)} - {0.0}):
            runs = select(fair.runs, family=family, weight=weight, role="chosen")
            plain = plain_runs(fair.runs, method, runs)
            nll = paired(by_unit(runs, lambda o: o.number("nll")), by_unit(plain, lambda o: o.number("nll")))
            accuracy = paired(by_unit(runs, lambda o: o.accuracy), by_unit(plain, lambda o: o.accuracy))
            if nll is not None and accuracy is not None and accuracy.n >= FEWEST:
                compared.append((runs, nll, accuracy))
    adjusted = holm([nll.t_test for _, nll, _ in compared]), holm([accuracy.t_test for *_, accuracy in compared])
    evidence, fluent, both = _training(fair, method), False, False
    for (runs, nll, accuracy), p_nll, p_accuracy in zip(compared, *adjusted, strict=True):
        lower = nll.difference < 0 and p_nll < SIGNIFICANT
        dearer = accuracy.difference <= -NOTICEABLE and p_accuracy < SIGNIFICANT
        fluent, both = fluent or lower, both or (lower and dearer)
        change = f"log-perplexity {nll.difference:+.2f} nats ({in_p(nll.t_test)}, corrected {in_p(p_nll)})"
        cost = f"accuracy {in_points(accuracy)}, corrected {in_p(p_accuracy)}{_with_the_rest(outcomes, runs, fair)}"
        evidence.append(f"{runs[0].family}, weight {runs[0].weight:g}: {change}, {cost}.")
    verdict = UNTESTED if not compared else CONFIRMED if both else PARTLY if fluent else REFUTED
    return Claim(statement, verdict, rule, tuple(evidence))


def _with_the_rest(outcomes: Sequence[Outcome], runs: Sequence[Outcome], fair: FairRuns) -> str:
    """The same accuracy with the tasks that were left out; "" where these runs were not made there."""
    alike = select(outcomes, family=runs[0].family, weight=runs[0].weight, role="chosen")
    rest = select(alike, task=tuple(fair.left_out))
    if not rest:
        return ""
    every = [*runs, *rest]
    plain = plain_runs(outcomes, runs[0].method, every)
    found = paired(by_unit(every, lambda o: o.accuracy), by_unit(plain, lambda o: o.accuracy))
    return "" if found is None else f"; with {', '.join(groups(rest, lambda o: o.task))} {in_points(found)}"


def _training(fair: FairRuns, method: str) -> list[str]:
    """What has to be known of the training that a verdict on a method rests on."""
    said = [str(fair)] if fair.left_out else []
    steps = [int(o.details["steps"]) for o in fair.runs if "steps" in o.details]
    if method == "rlprompt" and steps:
        said.append(
            f"These runs had {min(steps)} to {max(steps)} of the published {RLPROMPT_STEPS:,} steps; what more would "
            "change was not tested."
        )
    return said


def modified_pez_gets_stuck(outcomes: Sequence[Outcome]) -> Claim:
    """How often a search ends no better than it began."""
    rule = (
        "at least one run of PEZ with perplexity in ten is stuck, and more are than without, p < 0.05 (paired t-test; "
        "each task and split weighs the same), on the tasks where plain PEZ learned something; partly: the first only"
    )
    statement, fair = "PEZ with a perplexity term may fail to converge.", fair_runs(outcomes, "pez")
    evidence, runs = _training(fair, "pez"), _by_term(fair.runs)
    if min(map(len, runs.values())) < FEWEST:
        return Claim(statement, UNTESTED, rule, tuple(evidence))
    said, share, compared = _stuck(runs)
    worse = compared is not None and compared.difference > 0 and compared.t_test < SIGNIFICANT
    verdict = REFUTED if share < RARE else CONFIRMED if worse else PARTLY
    evidence.append(f"Stuck: {said}.")
    rest = [o for o in select(outcomes, method="pez") if o.task in fair.left_out]
    if rest:
        evidence.append(
            f"With {', '.join(groups(rest, lambda o: o.task))}: {_stuck(_by_term([*fair.runs, *rest]))[0]}."
        )
    asked = groups(sorted(runs["with"], key=lambda o: o.weight), lambda o: f"{o.weight:g}" if o.weight else "a target")
    evidence.append(f"By weight: {', '.join(f'{weight}: {_count(own)}' for weight, own in asked.items())}.")
    empty = no_prompt(outcomes)
    ended = " and ".join(
        f"{sum(is_ignored(o, empty) for o in own)} of {len(own)} {label} the term" for label, own in runs.items()
    )
    evidence.append(f"Not part of the rule, and looked at afterwards: within 2 points of no prompt end {ended}.")
    return Claim(statement, verdict, rule, tuple(evidence))


def _by_term(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Runs with and without the perplexity term."""
    chosen = select(outcomes, role="chosen")
    return {"with": [o for o in chosen if not o.plain], "without": [o for o in chosen if o.plain]}


def _stuck(runs: Mapping[str, Sequence[Outcome]]) -> tuple[str, float, Paired | None]:
    """How many got stuck, in words; the share with the term, each task and split weighing the same; the comparison."""
    share = {label: over_units(own, _is_stuck) or 0.0 for label, own in runs.items()}
    compared = paired(*(by_unit(own, _is_stuck) for own in runs.values()))
    said = " and ".join(f"{_count(own)} runs {label} the term" for label, own in runs.items())
    weighed = f"{share['with']:.0%} and {share['without']:.0%} where each task and split weighs the same"
    return f"{said} ({weighed}{f'; {in_p(compared.t_test)}' if compared else ''})", share["with"], compared


def _count(runs: Sequence[Outcome]) -> str:
    return f"{sum(map(_is_stuck, runs)):.0f} of {len(runs)}"


def rlprompt_gains_are_partial(outcomes: Sequence[Outcome]) -> Claim:
    """How often the perplexity reward helps without harm."""
    statement = "With a perplexity reward RLPrompt's gains are partial and inconsistent."
    rule = (
        "in 10% to 90% of the runs log-perplexity falls and accuracy loses less than 2 points against weight 0, on the "
        "tasks where RLPrompt learned something (a mild rule, which little but all or nothing would fail)"
    )
    fair = fair_runs(outcomes, "rlprompt")
    runs = [o for o in select(fair.runs, role="chosen") if o.weight]
    plain = {(o.unit, o.seed): o for o in plain_runs(fair.runs, "rlprompt", runs)}
    pairs = [(o, plain[place]) for o in runs if (place := (o.unit, o.seed)) in plain]
    if len(pairs) < FEWEST:
        return Claim(statement, UNTESTED, rule, tuple(_training(fair, "rlprompt")))
    gained = [o for o, p in pairs if _nll(o) < _nll(p) and o.accuracy > p.accuracy - NOTICEABLE]
    share = len(gained) / len(pairs)
    by_task = ", ".join(
        f"{task} {len(select(gained, task=task))} of {len(here)}"
        for task, here in groups((o for o, _ in pairs), lambda o: o.task).items()
    )
    evidence = f"{len(gained)} of {len(pairs)} runs ({share:.0%}) gain fluency without losing 2 points ({by_task})."
    claimed = (*_training(fair, "rlprompt"), evidence)
    return Claim(statement, verdict_of([RARE <= share <= 1 - RARE]), rule, claimed)


def perplexity_is_gamed(outcomes: Sequence[Outcome]) -> Claim:
    """Among trained prompts as likely as people's: how many are no text, or do nothing."""
    statement = "Perplexity is a flawed measure of readability: low-perplexity prompts need not be readable."
    rule = (
        "of the prompts that PEZ and RLPrompt found with a perplexity objective (fronts included) and that are as "
        "likely as the median human-written one, 10% or more are unreadable; the calibrated score contains "
        "log-perplexity, so what makes such a prompt unreadable are the flags"
    )
    own = select(outcomes, method=("pez", "rlprompt"), plain=False)
    trained = [o for o in own if o.number("nll") is not None]
    fluent = list(filter(is_fluent, trained))
    if not trained:
        return Claim(statement, UNTESTED, rule, ())
    known = [o for o in trained if o.number("score") is not None]
    correlation, count = rank_correlation([-_nll(o) for o in known], [o.number("score") or 0.0 for o in known])
    evidence = [f"{len(fluent)} of {len(trained)} such prompts are as likely as the median human-written prompt."]
    evidence.append(
        f"Log-perplexity and the calibrated score agree with a rank correlation of {correlation:.2f} (n {count})."
    )
    if len(fluent) < FEWEST:
        return Claim(statement, UNTESTED, rule, tuple(evidence))
    empty = no_prompt(outcomes)
    poor = sum(not o.measured["readable"] for o in fluent)
    kinds = Counter(str(pattern(o, empty)) for o in fluent if not o.measured["readable"])
    ignored = sum(is_ignored(o, empty) for o in fluent)
    by_task = ", ".join(
        f"{task} {sum(not o.measured['readable'] for o in here)} of {len(here)}"
        for task, here in groups(fluent, lambda o: o.task).items()
    )
    evidence.append(
        f"Of those as likely, {poor} ({poor / len(fluent):.0%}) are unreadable ({by_task}), and {ignored} are ignored "
        "by the model."
    )
    if poor:
        evidence.append(f"What makes them so: {', '.join(f'{name} {n}' for name, n in kinds.most_common())}.")
    people = {o.text: o for o in select(outcomes, method=("written", "human_search")) if o.number("nll") is not None}
    if people:
        flagged = sum(bool(o.measured["unreadable_flags"]) for o in people.values())
        evidence.append(
            f"Of the {len(people)} different human-written prompts in these runs {flagged} carry such a flag."
        )
    return Claim(statement, verdict_of([poor / len(fluent) >= RARE]), rule, tuple(evidence))


def _nll(outcome: Outcome) -> float:
    return outcome.number("nll") or 0.0


def _is_stuck(outcome: Outcome) -> float:
    return float(bool(outcome.details.get("stuck")))
