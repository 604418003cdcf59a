"""The lines that every form of a report shares: what kind of prompt it is, where it comes from, how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peft_interp.base_model_name import loading_code, public_name
from peft_interp.metrics.results import Neighbour, TokenReading
from peft_interp.report.verdicts import why_no_text
from peft_interp.tuner.config import PEFT_TYPE_NAME

if TYPE_CHECKING:
    from peft_interp.report.record import PromptReport

_NAMES = {
    "base_model": "base model",
    "task_type": "task type",
    "adapter": "adapter",
    "data": "data",
    "rows": "rows",
    "label_words": "label words",
    "template": "template",
    "judge": "perplexity model",
    "training": "training",
    "versions": "versions",
    "date": "date",
}


def headline(report: PromptReport) -> str:
    """What kind of prompt it is, in a few words."""
    count = len(report.reading.tokens)
    if not count:
        return f"{report.reading.method}: it {why_no_text(report.reading)}"
    places = f"{count} token{'s' if count != 1 else ''}"
    if report.reading.discrete:
        return f"prompt of {places}"
    return f"nearest tokens of a soft prompt of {places.replace('token', 'vector')}"


def others(token: TokenReading) -> list[Neighbour]:
    """The tokens near a vector besides the one it is read as, nearest first."""
    return [neighbour for neighbour in token.neighbours if neighbour.id != token.id]


def provenance(report: PromptReport) -> list[tuple[str, str]]:
    """Where the report comes from, as (name, value) in a fixed order; what is not known is left out."""
    known = {"method": report.reading.method, **report.context}
    order = ["method", *_NAMES, *(name for name in report.context if name not in _NAMES)]
    return [(_NAMES.get(name, name), _written(known[name])) for name in order if known.get(name) not in (None, "")]


def usage(report: PromptReport) -> list[tuple[str, str]]:
    """How to use the prompt, as (when, code); only what the verdicts allow."""
    name = public_name(report.context.get("base_model"))
    bring, base = loading_code(name, str(report.context.get("task_type") or "CAUSAL_LM"))
    ours = ["import peft_interp  # makes PEFT know the method"] if report.reading.method == PEFT_TYPE_NAME else []
    make = [base, 'model = PeftModel.from_pretrained(base, "ADAPTER")']
    load = "\n".join([*ours, "from peft import PeftModel", bring, "", *make])
    ways = [("As an adapter", load)]
    if report.reading.discrete and report.reading.text:
        ways.append((f"As text, {report.reading.placement.preposition} the input", f"prompt = {report.reading.text!r}"))
    return ways


def _written(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_written(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_written(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
