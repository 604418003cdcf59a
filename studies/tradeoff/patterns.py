"""What a prompt is, to a reader: readable and at work, or which of the known ways of fooling a measure it took."""

from __future__ import annotations

from collections.abc import Mapping

from studies.tradeoff.outcomes import Outcome, Unit

IGNORED_MARGIN = 0.02  # accuracy within this of no prompt's: the model does as if the prompt were not there
LEAK = "label leakage"
PATTERNS = {
    "special tokens": ("special_tokens", "blank", "punctuation", "broken_characters"),
    "repetition": ("repetition",),
    "boilerplate": ("boilerplate", "copied"),
    "no words": ("no_words", "mixed_scripts", "too_short"),
    LEAK: ("label_leak",),
}
SALAD, IGNORED, GOOD = "word salad", "fluent but ignored", "readable and at work"
NAMES = (*PATTERNS, SALAD, IGNORED, GOOD)


def pattern(outcome: Outcome, empty: Mapping[Unit, float]) -> str | None:
    """The first that applies, in the order of `NAMES`; None for vectors and for no prompt.

    Word salad: no flag, but the calibrated score is below its threshold. Label words are no leak where the method may
    name them.

    Args:
        outcome: a prompt.
        empty: accuracy without a prompt.
    """
    if not outcome.text:
        return None
    flags = outcome.measured.get("flags") or {}
    for name, members in PATTERNS.items():
        if any(flag in flags for flag in members) and not (name == LEAK and outcome.names_labels):
            return name
    if not outcome.measured.get("readable"):
        return SALAD
    return IGNORED if is_ignored(outcome, empty) else GOOD


def is_ignored(outcome: Outcome, empty: Mapping[Unit, float]) -> bool:
    """Whether accuracy is within `IGNORED_MARGIN` of that without a prompt."""
    return outcome.unit in empty and abs(outcome.accuracy - empty[outcome.unit]) <= IGNORED_MARGIN
