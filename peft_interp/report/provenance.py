"""Where a report comes from: model, adapter, data, versions and date, as far as the objects know it themselves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from peft_interp.base_model_name import public_name
from peft_interp.inference.models import base_model_of
from peft_interp.metrics.reading import prompt_config
from peft_interp.metrics.results import PromptReading
from peft_interp.report.record import ReportData
from peft_interp.text.rows import Rows
from peft_interp.text.verbalizer import Verbalizer
from peft_interp.tuner.config import InterpPromptConfig
from peft_interp.tuner.initialization import named_tokenizer

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_PACKAGES = {"peft_interp": "peft-interp", "peft": "peft", "transformers": "transformers", "torch": "torch"}
_SETTINGS = (
    "prompt_tuning_init",
    "perplexity_weight",
    "perplexity_gradient",
    "projection_metric",
    "allowed_tokens",
)
_NAMES = {
    "base_model": "base model",
    "tokenizer": "read with the tokenizer of",
    "other_tokenizer": "another tokenizer",
    "task_type": "task type",
    "adapter": "adapter",
    "data": "data",
    "rows": "rows",
    "label_words": "label words",
    "chat": "turn of the chat",
    "template": "template",
    "calibration": "calibration of the label words",
    "judge": "perplexity model",
    "training": "training",
    "versions": "versions",
    "date": "date",
}


def provenance(report: ReportData) -> list[tuple[str, str]]:
    """Where the report comes from, as (name, value) in a fixed order; what is not known is left out."""
    return facts(report.context, report.reading.method)


def facts(context: Mapping[str, Any], method: str) -> list[tuple[str, str]]:
    """A context with the prompt's method, as (name, value) in a fixed order; what is not known is left out."""
    known = {**context, "method": method}
    order = ["method", *_NAMES, *(name for name in context if name not in _NAMES and name != "method")]
    return [(_NAMES.get(name, name), _written(known[name])) for name in order if known.get(name) not in (None, "")]


def _written(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_written(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_written(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def describe(
    model: PeftModel,
    adapter_name: str | None = None,
    rows: Rows | None = None,
    verbalizer: Verbalizer | None = None,
    perplexity_model: PreTrainedModel | None = None,
) -> dict[str, Any]:
    """A report's context.

    Args:
        model: the adapter.
        adapter_name: None for the active one.
        rows: the data it was measured on.
        verbalizer: template and label words.
        perplexity_model: the second language model.

    Returns:
        base_model and judge (without a path of this machine), task_type, method settings, rows, template, label_words,
        versions and date; what is not known is missing.
    """
    config = prompt_config(model, adapter_name)
    base = config.base_model_name_or_path or getattr(base_model_of(model), "name_or_path", None)
    task = getattr(config.task_type, "value", config.task_type)
    return describe_measurement(base, task, rows, verbalizer, perplexity_model) | {"settings": _settings(config)}


def describe_measurement(
    base_model: str | None,
    task_type: str | None,
    rows: Rows | None = None,
    verbalizer: Verbalizer | None = None,
    perplexity_model: PreTrainedModel | None = None,
) -> dict[str, Any]:
    """The part of `describe` that needs no adapter."""
    known: dict[str, Any] = {
        "base_model": _name(base_model),
        "task_type": task_type,
        "rows": len(rows) if rows is not None else None,
        "template": verbalizer.template if verbalizer is not None else None,
        "label_words": list(verbalizer.label_words) or None if verbalizer is not None else None,
        "calibration": verbalizer.calibration if verbalizer is not None and verbalizer.calibration != "none" else None,
        **({"chat": verbalizer.chat} if verbalizer is not None and verbalizer.chat is not None else {}),
        "judge": _name(getattr(perplexity_model, "name_or_path", None)),
        "versions": {name: found for name, package in _PACKAGES.items() if (found := _version(package))},
        "date": datetime.now(UTC).date().isoformat(),
    }
    return {name: value for name, value in known.items() if value not in (None, "", {})}


def describe_tokenizer(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, reading: PromptReading, adapter_name: str | None = None
) -> dict[str, str]:
    """Who read the prompt, and what the tokenizer that the adapter names, if it is another, makes of the same ids.

    Returns:
        `tokenizer`, and where the two disagree `other_tokenizer`.
    """
    known = {"tokenizer": _name(getattr(tokenizer, "name_or_path", None)) or "the caller's"}
    other = named_tokenizer(prompt_config(model, adapter_name), tokenizer)
    if other is not None and reading.tokens:
        text = reading.placement.decode_prompt(other, reading.ids)
        if text != reading.text:
            known["other_tokenizer"] = f"the adapter names {_name(other.name_or_path)}, which reads its ids as {text!r}"
    return known


def _name(recorded: str | None) -> str | None:
    """Without a path, since reports are passed on."""
    return public_name(recorded).shown if recorded else None


def _settings(config: PeftConfig) -> dict[str, Any]:
    """What sets our method apart; of other methods, how they begin."""
    names = _SETTINGS if isinstance(config, InterpPromptConfig) else _SETTINGS[:1]
    found = {name: getattr(config, name, None) for name in names}
    return {name: getattr(value, "value", value) for name, value in found.items() if value is not None}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
