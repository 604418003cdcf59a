"""The paper's claims on what prompts are: faithful, and scrutable."""

from __future__ import annotations

from collections.abc import Sequence

from studies.tradeoff.claims.claim import FEWEST, NOTICEABLE, RARE, SIGNIFICANT, Claim, in_points, verdict_of
from studies.tradeoff.outcomes import READING, Outcome, by_unit, families, groups, judged, over_units, select
from studies.tradeoff.statistics import paired

EXACT = 1e-3  # differentials below this are none


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
        evidence.append(f"{soft}: text less vectors {in_points(found)}{said}.")
    if select(outcomes, method="prefix_tuning"):
        evidence.append("Prefix tuning puts no vectors among the inputs: no nearest token, no differential is defined.")
    return Claim("Soft prompts do not meet faithfulness.", verdict_of(held), rule, tuple(evidence))


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
    return Claim("Discrete prompts are faithful by construction.", verdict_of(held), rule, tuple(evidence))


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
    return Claim(statement, verdict_of(held), rule, tuple(evidence))


def _loss_difference(outcome: Outcome) -> float | None:
    found = outcome.measured.get("faithfulness")
    return None if not found else float(found["loss_difference"])
