"""The paper's claims (arXiv 2504.02144), each with a rule that decides it from the results."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from studies.tradeoff.claims.claim import Claim
from studies.tradeoff.claims.objective import (
    modified_pez_gets_stuck,
    perplexity_is_gamed,
    readability_costs_accuracy,
    rlprompt_gains_are_partial,
)
from studies.tradeoff.claims.prompts import (
    discrete_prompts_are_faithful,
    discrete_prompts_are_unreadable,
    soft_prompts_are_unfaithful,
    soft_prompts_are_unreadable,
)
from studies.tradeoff.outcomes import Outcome

ORIGIN = (
    "The paper's own tables and settings could not be obtained, so no number here is compared with one of the paper's; "
    "its claims are those of its abstract and of a review. On cost, convergence and gains a method is judged only on "
    "tasks where it learned something without the objective. p: paired t-test, and signed-rank test, over tasks and "
    "splits (n), seeds averaged first. They count as independent, which they are not quite: the splits of a task share "
    "its test rows. What holds on these tasks need not hold on others."
)


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
