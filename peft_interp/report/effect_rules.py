"""Verdicts on what a prompt is good for: does it help, and which of its tokens matter."""

from __future__ import annotations

from collections.abc import Sequence

from peft_interp.metrics.results import Faithfulness, PromptReading, TokenEffect
from peft_interp.report.thresholds import CARRYING_SHARE, IDLE_KL, LOSS_TOLERANCE, accuracy_noise, differ

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
    here, without, rows = measured.as_prompt, measured.without, measured.rows
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
    """Which tokens of the text carry its effect, by leaving each out."""
    effects = measured.token_effects if measured is not None else ()
    if not effects or len(effects) != len(reading.tokens):
        return None
    texts = [token.text for token in reading.tokens]
    idle = [text for text, effect in zip(texts, effects, strict=True) if effect.kl < IDLE_KL]
    if len(idle) == len(texts):
        return "no", "leaving out any one token of the text changes nothing"
    carriers = carrying(effects)
    verb = "carries" if len(carriers) == 1 else "carry"
    lead = f"{len(carriers)} of {len(texts)} tokens {verb} {CARRYING_SHARE:.0%} of the effect of the text"
    lead += f" ({_named([texts[index] for index in carriers])})"
    if not idle:
        return "yes", lead
    return "partly", f"{lead}; {_named(idle)} {'does' if len(idle) == 1 else 'do'} nothing"


def carrying(effects: Sequence[TokenEffect]) -> list[int]:
    """The fewest places, in order, that hold `CARRYING_SHARE` of the leave-one-out KL."""
    total = sum(effect.kl for effect in effects)
    chosen: list[int] = []
    for index in sorted(range(len(effects)), key=lambda place: -effects[place].kl):
        if sum(effects[place].kl for place in chosen) >= CARRYING_SHARE * total:
            break
        chosen.append(index)
    return sorted(chosen)


def _named(texts: Sequence[str]) -> str:
    shown = [repr(text) for text in dict.fromkeys(texts)]
    more = len(shown) - _MOST_NAMED
    return ", ".join(shown[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
