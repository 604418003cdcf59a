"""The paper's claims (arXiv 2504.02144), each with a rule that decides it from the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fair_pairs import FairRuns, fair_runs, plain_runs
from prompt_patterns import is_ignored, pattern
from study_outcomes import (
    READING,
    Outcome,
    by_unit,
    families,
    groups,
    is_fluent,
    judged,
    no_prompt,
    over_units,
    select,
)
from study_statistics import Paired, holm, paired, rank_correlation

CONFIRMED, REFUTED, PARTLY, UNTESTED = "confirmed", "not confirmed", "partly confirmed", "not testable here"
ORIGIN = (
    "The paper's own tables and settings could not be obtained, so no number here is compared with one of the paper's; "
    "its claims are those of its abstract and of a review. On cost, convergence and gains a method is judged only on "
    "tasks where it learned something without the objective. p: paired t-test, and signed-rank test, over tasks and "
    "splits (n), seeds averaged first. They count as independent, which they are not quite: the splits of a task share "
    "its test rows. What holds on these tasks need not hold on others."
)
NOTICEABLE, RARE, SIGNIFICANT = 0.02, 0.1, 0.05  # points of accuracy; a share; p
RLPROMPT_STEPS = 12_000  # as published
EXACT = 1e-3
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
    """Every claim, in the paper's order. Runs that never choose flagged prompts are a control, and have no part."""
    outcomes = [o for o in outcomes if not o.control]
    rules: tuple[Callable[[Sequence[Outcome]], Claim], ...] = (
        soft_prompts_are_unfaithful,
        soft_prompts_are_unreadable,
        discrete_prompts_are_faithful,
        discrete_prompts_are_unreadable,
        lambda o: readability_costs_accuracy(o, "pez", "PEZ"),
        lambda o: readability_costs_accuracy(o, "rlprompt", "RLPrompt"),
        modified_pez_gets_stuck,
        rlprompt_gains_are_partial,
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
    rule = (
        "in each method and variant all differentials are below 0.001 and every text survives decode -> encode (the "
        "distance is that of the tokens; logits and loss are those of the text, tokenised again)"
    )
    names = ("cosine_distance", "logit_mse", "loss_difference")
    own = [o for o in select(outcomes, method=("pez", "rlprompt"), role="chosen") if o.measured.get("faithfulness")]
    evidence, held, exact = [], [], 0
    for family, found in groups(own, lambda o: o.family).items():
        worst = {name: max(o.measured["faithfulness"][name] for o in found) for name in names}
        lost = sum(not o.measured.get("survives") for o in found)
        held.append(max(worst.values()) < EXACT and not lost)
        if not held[-1]:
            said = ", ".join(f"{name.replace('_', ' ')} {value:.1e}" for name, value in worst.items())
            evidence.append(f"{family}: {lost} of {len(found)} texts come back as other tokens; worst of all: {said}.")
        exact += len(found) * held[-1]
    if exact:
        evidence.append(f"{sum(held)} of {len(held)} methods and variants are exact throughout ({exact} prompts).")
    return Claim("Discrete prompts are faithful by construction.", _verdict(held), rule, tuple(evidence))


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
        fluent, both = (
            fluent or lower,
            both or (lower and accuracy.difference <= -NOTICEABLE and p_accuracy < SIGNIFICANT),
        )
        evidence.append(
            f"{runs[0].family}, weight {runs[0].weight:g}: log-perplexity {nll.difference:+.2f} nats "
            f"({_p(nll.t_test)}, corrected {_p(p_nll)}), accuracy {_points(accuracy)}, corrected {_p(p_accuracy)}"
            f"{_with_the_rest(outcomes, runs, fair)}."
        )
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
    return "" if found is None else f"; with {', '.join(groups(rest, lambda o: o.task))} {_points(found)}"


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
    return f"{said} ({weighed}{f'; {_p(compared.t_test)}' if compared else ''})", share["with"], compared


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
    return Claim(statement, _verdict([RARE <= share <= 1 - RARE]), rule, claimed)


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
