"""Verdicts on whether a person can read a prompt's text, and whether its scores may be taken as they are."""

from __future__ import annotations

import math

from peft_interp.metrics.results import Measure, PromptReading, Scrutability
from peft_interp.report.thresholds import FEW_ARE_WORSE, JUDGE_GAP

Answer = tuple[str, str]


def readable(reading: PromptReading, judged: Scrutability | None) -> Answer:
    """Whether a person can read the text. Of a soft prompt this is the text of the nearest tokens."""
    if not reading.tokens:
        return "unknown", "there is no text to read"
    if judged is None:
        return "unknown", (
            "no causal language model judged it; where the base model is none, pass one with `judge=` (`--judge` on "
            "the command line)"
        )
    whose = "" if reading.discrete else "its nearest tokens: "
    blocking = [flag.words for flag in judged.flags if flag.unreadable]
    if blocking:
        return "no", whose + "; ".join(blocking)
    fluency = judged.measures.get("nll")
    percentile = fluency.percentile if fluency is not None else None
    if math.isnan(judged.score):
        return "unknown", whose + "too short, or without reference levels, to be scored"
    if not judged.readable:
        return "no", f"{whose}score {judged.score:.2f} of 1{_perplexity(judged.measures.get('perplexity'))}"
    if percentile is None:
        return "yes", f"{whose}score {judged.score:.2f} of 1"
    if percentile < FEW_ARE_WORSE:
        return "partly", f"{whose}score {judged.score:.2f} of 1, but {_compared(percentile)}"
    return "yes", f"{whose}{_compared(percentile)} (score {judged.score:.2f} of 1)"


def trust(judged: Scrutability | None) -> Answer | None:
    """What a reader should know before taking the scores as they are."""
    if judged is None:
        return None
    warnings = [flag.words for flag in judged.flags if not flag.unreadable]
    gap = judged.measures.get("judge_gap")
    if gap is not None and gap.value < (gap.human or 0.0) - JUDGE_GAP:
        less = (gap.human or 0.0) - gap.value
        warnings.append(
            f"another language model finds the text less likely, by {less:.2f} nats per character more than for "
            "prompts that people wrote: its perplexity flatters it"
        )
    if not warnings:
        return None
    return "partly", "; ".join(warnings)


def _compared(percentile: float) -> str:
    if percentile < 1:
        return "less fluent than all prompts that people wrote"
    return f"at least as fluent as {percentile:.0f} of 100 prompts that people wrote"


def _perplexity(measure: Measure | None) -> str:
    if measure is None:
        return ""
    beside = f" (prompts people wrote: {measure.human:,.0f})" if measure.human is not None else ""
    return f", perplexity {measure.value:,.0f}{beside}"
