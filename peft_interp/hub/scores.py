"""An attached report in the card: as Markdown for people, as `model-index` results for the Hub."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult

from peft_interp.base_model_name import public_name
from peft_interp.report.prompt_report import PromptReport
from peft_interp.report.texts import plain
from peft_interp.tuner.task_types import prompt_task

logger = logging.getLogger(__name__)

# name in the card -> (the Hub's metric type, where the number stands in the report)
_METRICS = {
    "accuracy with the prompt": ("accuracy", ("faithfulness", "as_prompt", "accuracy")),
    "accuracy with its text in its place": ("accuracy", ("faithfulness", "as_text", "accuracy")),
    "accuracy without a prompt": ("accuracy", ("faithfulness", "without", "accuracy")),
    "loss with the prompt, nats": ("loss", ("faithfulness", "as_prompt", "loss")),
    "KL(prompt || text), nats": ("kl", ("faithfulness", "kl")),
    "perplexity of the prompt's text": ("perplexity", ("scrutability", "measures", "perplexity", "value")),
    "readability, 0 to 1": ("readability", ("scrutability", "score")),
}
OUR_METRICS = frozenset(_METRICS)
_TEXTS = ("template", "label_words", "prompt", "text")
_PATH = re.compile(r"(/|~|[A-Za-z]:[\\/]|\\\\)[^\s{}]*")


def plain_report(report: PromptReport | Mapping[str, Any]) -> dict[str, Any]:
    """A `PromptReport`, or its dictionary, without paths of this machine and rows of the data.

    Raises:
        TypeError: neither of both.
    """
    plain = report.to_dict() if hasattr(report, "to_dict") else report
    if not isinstance(plain, dict) or "reading" not in plain:
        raise TypeError(f"{type(report).__name__} is no prompt report; give a PromptReport or what its to_dict() made.")
    context = plain.get("context") or {}
    return {
        **_without_rows(plain),
        "context": {key: _public(value) for key, value in context.items() if key not in _TEXTS}
        | {key: value for key, value in context.items() if key in _TEXTS},
    }


def _without_rows(plain: dict[str, Any]) -> dict[str, Any]:
    """The report with the counts of answers, and without the texts of rows."""
    measured = plain.get("faithfulness")
    if not isinstance(measured, Mapping) or not isinstance(answered := measured.get("answered"), Mapping):
        return plain
    return {**plain, "faithfulness": {**measured, "answered": {**answered, "examples": []}}}


def _public(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _public(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_public(item) for item in value]
    if not isinstance(value, str) or not _PATH.fullmatch(value):
        return value
    name = public_name(value)
    return name.shown if name.kind == "embedded" else f"{name.name} (local)"


def readable_report(report: dict[str, Any] | None) -> PromptReport | None:
    """The report again; None for none, or for one that cannot be read (of a later version, say; the log names it)."""
    if report is None:
        return None
    try:
        return PromptReport.from_dict(report)
    except ValueError as error:
        logger.warning("the attached report is left out of the card: %s", plain(error))
        return None


def report_markdown(report: PromptReport | None) -> str:
    """Verdicts, scores with their reference levels, and tokens, without the prompt itself; "" for no report."""
    return "" if report is None else report.to_markdown(heading_level=2, with_prompt=False)


def eval_results(report: dict[str, Any] | None, task_type: str, folder: str = "") -> list[EvalResult]:
    """The report's main numbers for the card's `model-index`.

    Args:
        report: as a dictionary; None gives no results.
        task_type: PEFT's.
        folder: the adapter's, where a repository holds several.
    """
    if report is None:
        return []
    context = report.get("context")
    data = plain((context.get("data") if isinstance(context, Mapping) else None) or "data not named")
    task, results = prompt_task(task_type), []
    for name, (kind, path) in _METRICS.items():
        value = _at(report, path)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            results.append(
                EvalResult(
                    task_type=(task.pipeline_tag if task else "") or "text-generation",
                    dataset_type=data,
                    dataset_name=data,
                    metric_type=kind,
                    metric_name=f"{name} (in {folder})" if folder else name,
                    metric_value=round(float(value), 6),
                )
            )
    return results


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
