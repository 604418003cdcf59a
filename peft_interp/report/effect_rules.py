"""Verdicts on what a prompt is good for: does it help, and which of its tokens matter."""

from __future__ import annotations

import math
from collections.abc import Sequence

from peft_interp.metrics.results import Faithfulness, PromptReading
from peft_interp.report.thresholds import IDLE_KL, LOSS_TOLERANCE, NEEDED_SHARE, accuracy_noise, differ

Answer = tuple[str, str]
_MOST_NAMED = 4  # tokens named in a sentence; the table has them all


def acts(reading: PromptReading, measured: Faithfulness | None) -> Answer:
    """Whether the task goes better with the prompt than without."""
    if not reading.tokens:
        return "unknown", "not measured for this method"
    if measured is None:
        return "unknown", "no data given"
    if measured.without is None:
        return "unknown", "how the task goes without a prompt was not measured"
    here, without, rows = measured.beside_without, measured.without, measured.rows
    if math.isnan(without.loss) or math.isnan(here.loss):
        return (
            "unknown",
            "without a prompt nothing stands in front of the labels, so there is nothing to compare it with",
        )
    lower = here.loss < without.loss - LOSS_TOLERANCE
    losses = f"the loss goes from {without.loss:.2f} to {here.loss:.2f} nats"
    if here.accuracy is None or without.accuracy is None:
        if abs(here.loss - without.loss) <= LOSS_TOLERANCE:
            return "no", f"the prompt does nothing: the loss is the same without it ({without.loss:.2f} nats)"
        return ("yes" if lower else "no"), losses if lower else f"it makes the task worse: {losses}"
    figures = f"from {without.accuracy:.2f} without it to {here.accuracy:.2f}"
    if differ(here.accuracy, without.accuracy, rows):
        if here.accuracy > without.accuracy:
            return "yes", f"accuracy rises {figures}"
        return "no", f"it works against the task: accuracy falls {figures}"
    noise = accuracy_noise(here.accuracy, without.accuracy, rows)
    same = f"accuracy goes {figures}, within the noise of {rows} rows (about {noise:.2f})"
    if lower and here.accuracy >= without.accuracy:
        return "partly", f"{same}; {losses}"
    idle = abs(here.loss - without.loss) <= LOSS_TOLERANCE
    return "no", f"the prompt {'does nothing for' if idle else 'does not help'} the task: {same}"


def tokens(reading: PromptReading, measured: Faithfulness | None) -> Answer | None:
    """Whether the text needs every one of its tokens, by leaving each out: only then does the loss rise.

    Tokens that say the same stand in for each other: of a word said eight times none is needed.
    """
    effects = measured.token_effects if measured is not None else ()
    if measured is None or not effects or len(effects) != len(reading.tokens):
        return None
    texts = [token.text for token in reading.tokens]
    if all(effect.kl < IDLE_KL for effect in effects):
        return "no", "leaving out any one token of the text changes nothing"
    least = NEEDED_SHARE * max(0.0, _saved(measured))
    needed = [effect.kl >= IDLE_KL and effect.loss_increase > least for effect in effects]
    if not any(needed):
        return "no", "the text does as well without any one of its tokens: the loss does not rise"
    if all(needed):
        return "yes", f"without any one of the {len(texts)} tokens of the text the loss rises"
    able, idle = ([text for text, yes in zip(texts, needed, strict=True) if yes is kind] for kind in (True, False))
    verb = "is" if len(able) == 1 else "are"
    return "partly", f"{len(able)} of {len(texts)} tokens {verb} needed ({_named(able)}); each of {_named(idle)} is not"


def _saved(measured: Faithfulness) -> float:
    """Nats by which the text lowers the loss; 0 where that is not known."""
    saved = math.nan if measured.without is None else measured.without.loss - measured.as_text.loss
    return 0.0 if math.isnan(saved) else saved


def _named(texts: Sequence[str]) -> str:
    shown = [repr(text) for text in dict.fromkeys(texts)]
    more = len(shown) - _MOST_NAMED
    return ", ".join(shown[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
