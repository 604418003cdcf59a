"""The measures as modules of the `evaluate` library: thin classes over the plain functions.

    scrutability = peft_interp.metrics.load("scrutability")
    scrutability.compute(data=["Is this review positive?"], model=model, tokenizer=tokenizer)

They are measurements with a column `data` of prompts' texts, and take the same keywords, so that
`evaluate.combine([...]).compute(data=texts, model=..., tokenizer=..., rows=..., label_token_ids=...)` works: each uses
what concerns it. `label_words` are words for scrutability, `label_token_ids` ids for faithfulness.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any

import datasets
import evaluate

from peft_interp.inference.models import AnyModel
from peft_interp.metrics.faithfulness import measure_faithfulness
from peft_interp.metrics.readability_metrics import metric_table
from peft_interp.metrics.results import as_plain
from peft_interp.metrics.scrutability import measure_scrutability
from peft_interp.metrics.task_naming import measure_task_namings
from peft_interp.text.rows import Rows
from peft_interp.text.tokenization import check_texts

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

_PAPER = "Towards Interpretable Soft Prompts, arXiv 2504.02144"
_COMMON = """
Args:
    data: texts of prompts.
    model: for scrutability a causal LM or an adapter on one; for faithfulness the adapter with the prompt.
    tokenizer: its tokenizer.
"""


class _ColumnOfTexts:
    """Stands before a measurement and refuses a bare text, which `evaluate` would take apart into characters."""

    def add_batch(self, **columns: Any) -> None:
        """As that of `evaluate`."""
        check_texts("data", columns.get("data"))
        super().add_batch(**columns)  # type: ignore[misc]


class Scrutability(_ColumnOfTexts, evaluate.Measurement):
    """Whether a person can read prompts; see `peft_interp.metrics.scrutability`."""

    def _info(self) -> evaluate.MeasurementInfo:
        return _info(
            "Readability of prompts: likelihood beside reference levels, degenerate patterns, a calibrated score.",
            _COMMON + "    any other keyword of `measure_scrutability`.\n"
            "Returns: means over the texts of `score` and of every metric below whose needs are met, `readable` as the "
            "share of readable texts, and `scrutability`, one record for each text.\n\n" + metric_table(),
        )

    def _compute(
        self, data: Sequence[str], model: AnyModel, tokenizer: PreTrainedTokenizerBase, **options: Any
    ) -> dict[str, Any]:
        _check_texts(data)
        kept = _options(options, measure_scrutability)
        results = [measure_scrutability(model, tokenizer, text, **kept) for text in data]
        names = list(dict.fromkeys(name for result in results for name in result.measures))
        means = {
            name: _mean([found.measures[name].value for found in results if name in found.measures]) for name in names
        }
        return {
            "score": _mean([result.score for result in results]),
            "readable": mean(result.readable for result in results),
            **means,
            "scrutability": [as_plain(result) for result in results],
        }


class Faithfulness(_ColumnOfTexts, evaluate.Measurement):
    """Whether texts do what a prompt does; see `peft_interp.metrics.faithfulness`."""

    def _info(self) -> evaluate.MeasurementInfo:
        return _info(
            "Differences between a prompt as it acts and a text in its place, on the rows of a task.",
            _COMMON + "    rows: tokenised rows of the task (`input_ids`, `labels`).\n"
            "    label_token_ids: ids of the label words; any other keyword of `measure_faithfulness`.\n"
            "Returns: means over the texts of the differentials (those of performance are `loss_difference` and "
            "`accuracy_difference`), and `faithfulness`, one record for each text.",
        )

    def _compute(
        self,
        data: Sequence[str],
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        rows: Rows | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        _check_texts(data)
        if rows is None:
            raise ValueError("`rows=None` leaves nothing to compare on; pass the task's tokenised rows.")
        kept = _options(options, measure_faithfulness)
        results = [as_plain(measure_faithfulness(model, tokenizer, rows, text=text, **kept)) for text in data]
        names = dict.fromkeys(name for result in results for name in _numbers(result))
        means = {name: _mean([result[name] for result in results]) for name in names}
        return {**means, "faithfulness": results}


class TaskNaming(_ColumnOfTexts, evaluate.Measurement):
    """Whether prompts name their task; see `peft_interp.metrics.task_naming`."""

    def _info(self) -> evaluate.MeasurementInfo:
        return _info(
            "Whether a prompt's text says what it is for, beside prompts that people wrote for other tasks.",
            "\nArgs:\n    data: texts of prompts.\n"
            "    task_description, label_words, examples, encoder: as for `measure_task_naming`.\n"
            "Returns: mean `score` in standard deviations, mean `coherence`, `named` as the share of texts that name "
            "the task, and `task_naming`, one record for each text.",
        )

    def _compute(self, data: Sequence[str], **options: Any) -> dict[str, Any]:
        _check_texts(data)
        results = measure_task_namings(list(data), **_options(options, measure_task_namings))
        return {
            "score": _mean([result.score for result in results]),
            "coherence": _mean([result.coherence.value for result in results]),
            "named": mean(result.verdict == "named" for result in results),
            "task_naming": [as_plain(result) for result in results],
        }


def _check_texts(data: Sequence[str]) -> None:
    if not len(data):
        raise ValueError("`data=[]` holds no prompt, and there is no mean of nothing; pass at least one text.")


def _info(description: str, inputs: str) -> evaluate.MeasurementInfo:
    return evaluate.MeasurementInfo(
        description=description,
        citation=_PAPER,
        inputs_description=inputs,
        features=datasets.Features({"data": datasets.Value("string")}),
    )


def _options(options: Mapping[str, Any], function: Callable[..., Any]) -> dict[str, Any]:
    """The keywords that a function takes; those of the other measure are left out.

    Raises:
        ValueError: a keyword that neither takes.
    """
    functions = (measure_scrutability, measure_faithfulness, measure_task_namings)
    known = {name for each in functions for name in inspect.signature(each).parameters} - {"text", "texts"}
    if unknown := sorted(set(options) - known):
        raise ValueError(f"`{unknown[0]}` is no keyword of these measures; use one of {', '.join(sorted(known))}.")
    return {name: value for name, value in options.items() if name in inspect.signature(function).parameters}


def _numbers(record: Mapping[str, Any]) -> list[str]:
    return [name for name, value in record.items() if isinstance(value, (int, float)) and not isinstance(value, bool)]


def _mean(values: Sequence[float | None]) -> float:
    numbers = [value for value in values if value is not None and not math.isnan(value)]
    return mean(numbers) if numbers else math.nan
