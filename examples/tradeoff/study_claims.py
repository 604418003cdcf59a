"""The paper's claims (arXiv 2504.02144), each with a rule that decides it from the results.

Rules were written before the results were known. What the paper measured, and by how much, could not be obtained; its
claims are those of its abstract and of a review.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prompt_patterns import is_ignored
from study_outcomes import READING, Outcome, by_unit, families, groups, judged, no_prompt, select
from study_statistics import Paired, paired, rank_correlation

CONFIRMED, REFUTED, PARTLY, UNTESTED = "confirmed", "not confirmed", "partly confirmed", "not testable here"
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
        differential = _mean_of(select(outcomes, family=soft, role="chosen"), "loss_difference")
        evidence.append(
            f"{soft}: text less vectors {_points(found)}; performance differential {differential:.2f} nats."
        )
    if select(outcomes, method="prefix_tuning"):
        evidence.append("Prefix tuning puts no vectors among the inputs: no nearest token, no differential is defined.")
    return Claim("Soft prompts do not meet faithfulness.", _verdict(held), rule, tuple(evidence))


def soft_prompts_are_unreadable(outcomes: Sequence[Outcome]) -> Claim:
    """Whether people could read the nearest tokens."""
    own = [name for name in families(outcomes) if name.endswith(READING)]
    return _unreadable(outcomes, own, "The text of soft prompts is not scrutable.")


def discrete_prompts_are_unreadable(outcomes: Sequence[Outcome]) -> Claim:
    """PEZ and RLPrompt without a readability objective."""
    own = families(o for o in outcomes if o.method in ("pez", "rlprompt") and not o.weight)
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
    statement = f"An interpretability objective on {name} makes prompts more readable and costs task performance."
    rule = "some weight lowers log-perplexity and some weight lowers accuracy by 2 points or more, both p < 0.05"
    evidence, fluent, worse = [], [], []
    for family in families(o for o in outcomes if o.method == method and o.weight):
        for weight in sorted({o.weight for o in select(outcomes, family=family)}):
            runs = select(outcomes, family=family, weight=weight, role="chosen")
            plain = _plain_runs(outcomes, method, runs)
            nll = paired(by_unit(runs, lambda o: o.number("nll")), by_unit(plain, lambda o: o.number("nll")))
            accuracy = paired(by_unit(runs, lambda o: o.accuracy), by_unit(plain, lambda o: o.accuracy))
            if nll is None or accuracy is None:
                continue
            if accuracy.n >= FEWEST:
                fluent.append(nll.difference < 0 and nll.t_test < SIGNIFICANT)
                worse.append(accuracy.difference <= -NOTICEABLE and accuracy.t_test < SIGNIFICANT)
            change = f"log-perplexity {nll.difference:+.2f} nats (p {nll.t_test:.3f})"
            evidence.append(f"{family}, weight {weight:g}: {change}, accuracy {_points(accuracy)}.")
    verdict = _verdict([any(fluent), any(worse)] if fluent else [])
    return Claim(statement, verdict, rule, tuple(evidence))


def best_paid(outcomes: Sequence[Outcome], method: str) -> list[Outcome]:
    """Of a method's runs with and without the objective, in each task those of the largest budget that both had."""
    found = []
    for own in groups(select(outcomes, method=method), lambda o: o.task).values():
        shared = {o.budget for o in own if o.weight} & {o.budget for o in own if not o.weight}
        found += [o for o in own if shared and o.budget == max(shared)]
    return found


def _plain_runs(outcomes: Sequence[Outcome], method: str, like: Sequence[Outcome]) -> list[Outcome]:
    """Runs with weight 0 and otherwise the settings that most resemble these: the first family of the method."""
    own = families(o for o in outcomes if o.method == method and not o.weight)
    units = {o.unit for o in like}
    return [o for o in select(outcomes, family=tuple(own[:1]), role="chosen") if o.unit in units]


def modified_pez_gets_stuck(outcomes: Sequence[Outcome]) -> Claim:
    """How often a search ends no better than it began."""
    rule = "more runs of PEZ with perplexity than without are stuck, and at least one in ten is"
    shares = {}
    for label, own in (
        ("with", [o for o in outcomes if o.method == "pez" and o.weight]),
        ("without", [o for o in outcomes if o.method == "pez" and not o.weight]),
    ):
        runs = [o for o in own if o.role == "chosen"]
        if runs:
            shares[label] = (sum(bool(o.details.get("stuck")) for o in runs), len(runs))
    statement = "PEZ with a perplexity term may fail to converge."
    if len(shares) < 2 or min(count for _, count in shares.values()) < FEWEST:
        return Claim(statement, UNTESTED, rule, ())
    ratio = {label: stuck / count for label, (stuck, count) in shares.items()}
    said = " and ".join(f"{stuck} of {count} runs {label} the term" for label, (stuck, count) in shares.items())
    held = ratio["with"] > ratio["without"] and ratio["with"] >= RARE
    return Claim(statement, _verdict([held]), rule, (f"Stuck: {said}.",))


def rlprompt_gains_are_partial(outcomes: Sequence[Outcome]) -> Claim:
    """How often the perplexity reward helps without harm."""
    statement = "With a perplexity reward RLPrompt's gains are partial and inconsistent."
    rule = "in 10% to 90% of the runs log-perplexity falls and accuracy loses less than 2 points against weight 0"
    runs = [o for o in select(outcomes, method="rlprompt", role="chosen") if o.weight]
    plain = {o.unit: o for o in _plain_runs(outcomes, "rlprompt", runs)}
    pairs = [(o, plain[o.unit]) for o in runs if o.unit in plain]
    if len(pairs) < FEWEST:
        return Claim(statement, UNTESTED, rule, ())
    gains = sum(_nll(o) < _nll(p) and o.accuracy > p.accuracy - NOTICEABLE for o, p in pairs)
    share = gains / len(pairs)
    evidence = f"{gains} of {len(pairs)} runs ({share:.0%}) gain fluency without losing 2 points."
    return Claim(statement, _verdict([RARE <= share <= 1 - RARE]), rule, (evidence,))


def perplexity_is_gamed(outcomes: Sequence[Outcome]) -> Claim:
    """Among trained prompts as likely as people's: how many are no text, or do nothing."""
    statement = "Perplexity is a flawed measure of readability: low-perplexity prompts need not be readable."
    rule = "of the trained prompts as likely as the median human-written one, 10% or more are unreadable"
    trained = [o for o in judged(outcomes) if o.method in ("pez", "rlprompt", "search") and o.number("nll") is not None]
    fluent = [o for o in trained if _nll(o) <= (o.number("nll_human") or 0.0)]
    if not trained:
        return Claim(statement, UNTESTED, rule, ())
    known = [o for o in trained if o.number("score") is not None]
    correlation, count = rank_correlation([-_nll(o) for o in known], [o.number("score") or 0.0 for o in known])
    evidence = [f"{len(fluent)} of {len(trained)} trained prompts are as likely as the median human-written prompt."]
    evidence.append(
        f"Log-perplexity and the calibrated score agree with a rank correlation of {correlation:.2f} (n {count})."
    )
    if len(fluent) < FEWEST:
        return Claim(statement, UNTESTED, rule, tuple(evidence))
    empty = no_prompt(outcomes)
    poor = sum(not o.measured["readable"] for o in fluent)
    ignored = sum(is_ignored(o, empty) for o in fluent)
    evidence.append(
        f"Of those as likely, {poor} ({poor / len(fluent):.0%}) are unreadable and {ignored} are ignored by the model."
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
    return f"{100 * found.difference:+.1f} points ({low:+.1f} to {high:+.1f}, n {found.n}, p {found.t_test:.3f})"


def _nll(outcome: Outcome) -> float:
    return outcome.number("nll") or 0.0


def _mean_of(outcomes: Sequence[Outcome], name: str) -> float:
    values = [o.measured["faithfulness"][name] for o in outcomes if o.measured.get("faithfulness")]
    return sum(values) / len(values) if values else float("nan")
