"""The paper's claims (arXiv 2504.02144), each with a rule that decides it from the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from prompt_patterns import is_ignored
from study_outcomes import READING, Outcome, Unit, by_unit, families, groups, judged, no_prompt, over_units, select
from study_statistics import Paired, holm, paired, rank_correlation

CONFIRMED, REFUTED, PARTLY, UNTESTED = "confirmed", "not confirmed", "partly confirmed", "not testable here"
ORIGIN = (
    "The paper's own tables and settings could not be obtained, so no number here is compared with one of the paper's; "
    "its claims are those of its abstract and of a review. Rules were first written before the grid was run. They were "
    "made stricter when SST-2 and a quarter of MR and AG News were known: RLPrompt is judged by its runs of largest "
    "budget, and only where it learned something; one and the same weight has to make prompts more fluent and cost "
    "accuracy, with Holm's correction; the search, which is not the paper's, has no part in the last claim. That more "
    "runs be stuck than without the term, p < 0.05, was asked for when all was known: it made a verdict weaker. p: "
    "paired t-test, and signed-rank test, over tasks and splits (n), seeds averaged first; they count as independent, "
    "which MR and SST, whose texts overlap, are not quite."
)
NOTICEABLE, RARE, SIGNIFICANT = 0.02, 0.1, 0.05  # points of accuracy; a share; p
FEWEST = 5  # pairs, or prompts, that anything is said about


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        statement: what the paper says.
        verdict: one of the four above.
        rule: what decides.
        evidence: the numbers, one sentence each.
    """

    statement: str
    verdict: str
    rule: str
    evidence: tuple[str, ...]


def all_claims(outcomes: Sequence[Outcome]) -> list[Claim]:
    """Every claim, in the paper's order."""
    rules: tuple[Callable[[Sequence[Outcome]], Claim], ...] = (
        soft_prompts_are_unfaithful,
        soft_prompts_are_unreadable,
        discrete_prompts_are_faithful,
        discrete_prompts_are_unreadable,
        lambda o: readability_costs_accuracy(o, "pez", "PEZ"),
        lambda o: readability_costs_accuracy(best_paid(o, "rlprompt"), "rlprompt", "RLPrompt"),
        modified_pez_gets_stuck,
        lambda o: rlprompt_gains_are_partial(best_paid(o, "rlprompt")),
        perplexity_is_gamed,
    )
    return [rule(outcomes) for rule in rules]


def soft_prompts_are_unfaithful(outcomes: Sequence[Outcome]) -> Claim:
    """Text of the nearest tokens against the vectors, paired."""
    rule = "in each method the text is worse than the vectors by 2 points or more, p < 0.05 (paired t-test)"
    evidence, held = [], []
    for family in [name for name in families(outcomes) if name.endswith(READING)]:
        soft = family.removesuffix(READING)
        read, acts = (by_unit(select(outcomes, family=f), lambda o: o.accuracy) for f in (family, soft))
        if (found := paired(read, acts)) is None:
            continue
        if found.n >= FEWEST:
            held.append(found.difference <= -NOTICEABLE and found.t_test < SIGNIFICANT)
        differential = over_units(select(outcomes, family=soft, role="chosen"), _loss_difference)
        said = "" if differential is None else f"; performance differential {differential:.2f} nats"
        evidence.append(f"{soft}: text less vectors {_points(found)}{said}.")
    if select(outcomes, method="prefix_tuning"):
        evidence.append("Prefix tuning puts no vectors among the inputs: no nearest token, no differential is defined.")
    return Claim("Soft prompts do not meet faithfulness.", _verdict(held), rule, tuple(evidence))


def soft_prompts_are_unreadable(outcomes: Sequence[Outcome]) -> Claim:
    """Whether people could read the nearest tokens."""
    own = [name for name in families(outcomes) if name.endswith(READING)]
    return _unreadable(outcomes, own, "The text of soft prompts is not scrutable.")


def discrete_prompts_are_unreadable(outcomes: Sequence[Outcome]) -> Claim:
    """PEZ and RLPrompt without a readability objective."""
    own = families(o for o in outcomes if o.method in ("pez", "rlprompt") and o.plain)
    return _unreadable(outcomes, own, "Plain PEZ and RLPrompt find prompts that are not scrutable.")


def discrete_prompts_are_faithful(outcomes: Sequence[Outcome]) -> Claim:
    """Tokens as tokens: every differential 0."""
    rule = "all differentials of PEZ and RLPrompt are below 0.001 and every text survives decode -> encode"
    own = [o for o in select(outcomes, method=("pez", "rlprompt"), role="chosen") if o.measured.get("faithfulness")]
    if not own:
        return Claim("Discrete prompts are faithful by construction.", UNTESTED, rule, ())
    names = ("cosine_distance", "logit_mse", "loss_difference")
    worst = {name: max(o.measured["faithfulness"][name] for o in own) for name in names}
    survived = sum(bool(o.measured.get("survives")) for o in own) / len(own)
    said = ", ".join(f"{name.replace('_', ' ')} {value:.1e}" for name, value in worst.items())
    evidence = f"Worst of {len(own)} prompts: {said}; {survived:.1%} of the texts survive."
    held = max(worst.values()) < 1e-3 and survived == 1
    return Claim("Discrete prompts are faithful by construction.", _verdict([held]), rule, (evidence,))


def readability_costs_accuracy(outcomes: Sequence[Outcome], method: str, name: str) -> Claim:
    """The objective against the plain method, weight by weight."""
    statement = f"A perplexity objective on {name} makes prompts more fluent and costs task performance."
    rule = (
        "some weight lowers log-perplexity and also accuracy by 2 points or more, both p < 0.05 (paired t-test, Holm's "
        "correction over the weights); partly: more fluent only"
    )
    evidence, fluency, costs = [], [], []
    for family in families(o for o in outcomes if o.method == method and o.weight):
        for weight in sorted({o.weight for o in select(outcomes, family=family)}):
            runs = select(outcomes, family=family, weight=weight, role="chosen")
            plain = _plain_runs(outcomes, method, runs)
            nll = paired(by_unit(runs, lambda o: o.number("nll")), by_unit(plain, lambda o: o.number("nll")))
            accuracy = paired(by_unit(runs, lambda o: o.accuracy), by_unit(plain, lambda o: o.accuracy))
            if nll is None or accuracy is None:
                continue
            if accuracy.n >= FEWEST:
                fluency.append(nll)
                costs.append(accuracy)
            change = f"log-perplexity {nll.difference:+.2f} nats ({_p(nll.t_test)})"
            evidence.append(f"{family}, weight {weight:g}: {change}, accuracy {_points(accuracy)}.")
    fluent = [
        found.difference < 0 and p < SIGNIFICANT
        for found, p in zip(fluency, holm([found.t_test for found in fluency]), strict=True)
    ]
    worse = [
        found.difference <= -NOTICEABLE and p < SIGNIFICANT
        for found, p in zip(costs, holm([found.t_test for found in costs]), strict=True)
    ]
    both = any(a and b for a, b in zip(fluent, worse, strict=True))
    verdict = UNTESTED if not fluent else CONFIRMED if both else PARTLY if any(fluent) else REFUTED
    return Claim(statement, verdict, rule, tuple(evidence))


def best_paid(outcomes: Sequence[Outcome], method: str) -> list[Outcome]:
    """Of a method's runs with and without the objective, in each task those of the largest budget that both had.

    Only where the method without it learned something: where its accuracy, over the splits, is above no prompt's.
    """
    empty = no_prompt(outcomes)
    found = []
    for own in groups(select(outcomes, method=method), lambda o: o.task).values():
        shared = {o.budget for o in own if o.weight} & {o.budget for o in own if o.plain}
        runs = [o for o in own if shared and o.budget == max(shared)]
        if _gain([o for o in runs if o.plain and o.role == "chosen"], empty) >= NOTICEABLE:
            found += runs
    return found


def _gain(outcomes: Sequence[Outcome], empty: Mapping[Unit, float]) -> float:
    """Mean accuracy above no prompt's; 0 of nothing."""
    return over_units(outcomes, lambda o: o.accuracy - empty[o.unit] if o.unit in empty else None) or 0.0


def _plain_runs(outcomes: Sequence[Outcome], method: str, like: Sequence[Outcome]) -> list[Outcome]:
    """For each of these runs the first one without objective on the same task, split and seed, at the same budget."""
    found: dict[tuple[Unit, int, int], Outcome] = {}
    for outcome in select(outcomes, method=method, plain=True, role="chosen"):
        found.setdefault((outcome.unit, outcome.seed, outcome.budget), outcome)
    return [found[place] for place in dict.fromkeys((o.unit, o.seed, o.budget) for o in like) if place in found]


def modified_pez_gets_stuck(outcomes: Sequence[Outcome]) -> Claim:
    """How often a search ends no better than it began."""
    rule = (
        "at least one run of PEZ with perplexity in ten is stuck, and more are than without, p < 0.05 (paired t-test; "
        "each task and split weighs the same); partly: the first only"
    )
    runs_of = select(outcomes, method="pez", role="chosen")
    runs = {"with": [o for o in runs_of if not o.plain], "without": [o for o in runs_of if o.plain]}
    statement = "PEZ with a perplexity term may fail to converge."
    if min(map(len, runs.values())) < FEWEST:
        return Claim(statement, UNTESTED, rule, ())
    share = {label: over_units(own, _is_stuck) or 0.0 for label, own in runs.items()}
    said = " and ".join(
        f"{sum(map(_is_stuck, own)):.0f} of {len(own)} runs {label} the term ({share[label]:.0%})"
        for label, own in runs.items()
    )
    compared = paired(*(by_unit(own, _is_stuck) for own in runs.values()))
    worse = compared is not None and compared.difference > 0 and compared.t_test < SIGNIFICANT
    verdict = REFUTED if share["with"] < RARE else CONFIRMED if worse else PARTLY
    evidence = f"Stuck: {said}{f'; {_p(compared.t_test)}' if compared else ''}."
    return Claim(statement, verdict, rule, (evidence,))


def rlprompt_gains_are_partial(outcomes: Sequence[Outcome]) -> Claim:
    """How often the perplexity reward helps without harm."""
    statement = "With a perplexity reward RLPrompt's gains are partial and inconsistent."
    rule = "in 10% to 90% of the runs log-perplexity falls and accuracy loses less than 2 points against weight 0"
    runs = [o for o in select(outcomes, method="rlprompt", role="chosen") if o.weight]
    plain = {(o.unit, o.seed): o for o in _plain_runs(outcomes, "rlprompt", runs)}
    pairs = [(o, plain[place]) for o in runs if (place := (o.unit, o.seed)) in plain]
    if len(pairs) < FEWEST:
        return Claim(statement, UNTESTED, rule, ())
    gains = sum(_nll(o) < _nll(p) and o.accuracy > p.accuracy - NOTICEABLE for o, p in pairs)
    share = gains / len(pairs)
    evidence = f"{gains} of {len(pairs)} runs ({share:.0%}) gain fluency without losing 2 points."
    return Claim(statement, _verdict([RARE <= share <= 1 - RARE]), rule, (evidence,))


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
    fluent = [o for o in trained if _nll(o) <= (o.number("nll_human") or 0.0)]
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
    ignored = sum(is_ignored(o, empty) for o in fluent)
    by_task = ", ".join(
        f"{task} {sum(not o.measured['readable'] for o in here)} of {len(here)}"
        for task, here in groups(fluent, lambda o: o.task).items()
    )
    evidence.append(
        f"Of those as likely, {poor} ({poor / len(fluent):.0%}) are unreadable ({by_task}), and {ignored} are ignored "
        "by the model."
    )
    return Claim(statement, _verdict([poor / len(fluent) >= RARE]), rule, tuple(evidence))


def _unreadable(outcomes: Sequence[Outcome], own: Sequence[str], statement: str) -> Claim:
    rule = "in each method fewer than 10% of the prompts pass the calibrated score and carry no flag"
    evidence, held = [], []
    for family, found in groups(judged(select(outcomes, family=tuple(own))), lambda o: o.family).items():
        known = [o for o in found if o.number("nll") is not None]
        if not known:
            continue
        readable = sum(bool(o.measured["readable"]) for o in known)
        if len(known) >= FEWEST:
            held.append(readable / len(known) < RARE)
        levels = [sum(o.number(name) or 0.0 for o in known) / len(known) for name in ("nll", "nll_human")]
        beside = f"mean log-perplexity {levels[0]:.1f}, human-written {levels[1]:.1f}"
        evidence.append(f"{family}: {readable} of {len(known)} readable; {beside}.")
    return Claim(statement, _verdict(held), rule, tuple(evidence))


def _verdict(held: Sequence[bool]) -> str:
    if not held:
        return UNTESTED
    return CONFIRMED if all(held) else PARTLY if any(held) else REFUTED


def _points(found: Paired) -> str:
    """A difference of accuracies in words."""
    low, high = 100 * found.low, 100 * found.high
    ps = f"{_p(found.t_test)}, signed-rank {_p(found.wilcoxon)}"
    return f"{100 * found.difference:+.1f} points ({low:+.1f} to {high:+.1f}, n {found.n}, {ps})"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p {value:.3f}"


def _nll(outcome: Outcome) -> float:
    return outcome.number("nll") or 0.0


def _loss_difference(outcome: Outcome) -> float | None:
    found = outcome.measured.get("faithfulness")
    return None if not found else float(found["loss_difference"])


def _is_stuck(outcome: Outcome) -> float:
    return float(bool(outcome.details.get("stuck")))
