"""Every score of a report as one table row: value, what it is beside, which way is better, what it means."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from peft_interp.metrics.differentials import DIFFERENTIALS
from peft_interp.metrics.metric import Metric
from peft_interp.metrics.readability_metrics import METRICS
from peft_interp.metrics.results import Faithfulness, LabelPrior, Measure, PromptReading, Waywardness
from peft_interp.report.record import ReportData
from peft_interp.report.texts import count, number, perplexity, share, signed
from peft_interp.text.label_bias import numbers_text


@dataclass(frozen=True)
class Score:
    """One row.

    Attributes:
        group: "task", "text against prompt", "label prior", "waywardness" or "readability".
        name: what is measured.
        value: as written in a table.
        reference: what to hold it against; "" where there is nothing.
        better: "lower", "higher" or "" where neither is good in itself.
        meaning: one line.
        main: whether a short table has it as well.
    """

    group: str
    name: str
    value: str
    reference: str
    better: str
    meaning: str
    main: bool = True


_WRITTEN: dict[str, Callable[[float | None], str]] = {
    "number": number,
    "share": share,
    "count": count,
    "perplexity": perplexity,
}


def all_scores(report: ReportData) -> list[Score]:
    """Every score there is, task first."""
    rows: list[Score] = []
    if report.faithfulness is not None:
        rows += _task(report.faithfulness, report.reading)
    if report.faithfulness is not None and not report.reading.is_text:
        rows += _differentials(report.faithfulness, report.reading)
    if report.label_prior is not None:
        rows += _label_prior(report.label_prior)
    if report.waywardness is not None:
        rows += _wayward(report.waywardness)
    if report.scrutability is not None:
        rows.append(
            Score("readability", "readability score", number(report.scrutability.score), "0 to 1", "higher", _COMPOSITE)
        )
        rows += [_readability(name, measure) for name, measure in report.scrutability.measures.items()]
    return rows


_AGAINST = "text against prompt"
_COMPOSITE = "several measures in one; tells text from word salad, nothing finer"


def _task(measured: Faithfulness, reading: PromptReading) -> Iterator[Score]:
    sides = (
        ("as prompt", None if reading.is_text else measured.as_prompt, "the prompt as it acts", measured.label_bias),
        ("as text", measured.as_text, "the text in its place", measured.label_bias),
        ("without", measured.without, "no prompt at all", measured.without_bias),
    )
    for name, performance, meaning, bias in sides:
        if performance is None or math.isnan(performance.loss):
            continue
        shared = measured.as_prompt_shared if name == "without" else None
        beside = f"as prompt {number(shared.loss)} at the same tokens" if shared is not None else ""
        if performance.accuracy is not None:
            numbers = f", {'with' if bias else 'without'} numbers for the label words" if measured.label_bias else ""
            yield Score("task", f"accuracy {name}", number(performance.accuracy), "", "higher", meaning + numbers)
        yield Score("task", f"loss {name}", number(performance.loss), beside, "lower", f"{meaning}, nats")


def _differentials(measured: Faithfulness, reading: PromptReading) -> Iterator[Score]:
    """Distances stand beside how far tokens lie from their nearest neighbours, the others beside what is exact."""
    typical = {
        "cosine_distance": reading.typical_cosine_distance,
        "euclidean_distance": reading.typical_euclidean_distance,
    }
    for found in DIFFERENTIALS:
        value = getattr(measured, found.name)
        if value is not None:
            beside = f"token to token {number(typical[found.name])}" if found.name in typical else found.exact
            yield Score(_AGAINST, found.label, _WRITTEN[found.written](value), beside, found.better, found.words)


def _label_prior(found: LabelPrior) -> Iterator[Score]:
    """Accuracies with each side's own numbers, beside those without."""
    group = "label prior"
    sides = (("without", found.without), ("as text", found.as_text), ("as prompt", found.as_prompt))
    for name, side in sides:
        if side is not None:
            words = f"with its own numbers added to the label words: {numbers_text(found.words, side.bias)}"
            raw = f"raw {number(side.accuracy.mean)}"
            yield Score(group, f"accuracy {name}, calibrated", number(side.calibrated.mean), raw, "higher", words)
    gains = (
        ("gain, raw", found.gain, "the prompt less no prompt, as is usually reported"),
        ("gain of numbers alone", found.prior, "no prompt, calibrated less as it is: the label prior"),
        ("gain beyond numbers", found.beyond, "the prompt less no prompt, both calibrated"),
    )
    for name, gain, words in gains:
        low, high = gain.interval()
        beside = f"95%: {signed(low)} to {signed(high)}" if math.isfinite(low) else "too few rows"
        yield Score(group, name, signed(gain.mean), beside, "higher" if gain is not found.prior else "", words)


def _wayward(bound: Waywardness) -> Iterator[Score]:
    target = bound.target.loss if bound.wayward.accuracy is None else bound.target.accuracy
    group, beside = "waywardness", f"the text itself {number(target)}"
    words = "share of tokens of a prompt trained to say another text that do say it"
    yield Score(group, "says the other text", share(bound.projected_share), "", "", words)
    if bound.wayward.accuracy is not None:
        words = "how well the task goes while the nearest tokens say something else"
        yield Score(group, "accuracy all the same", number(bound.wayward.accuracy), beside, "lower", words)
    else:
        yield Score(group, "loss all the same", number(bound.wayward.loss), beside, "higher", "the same by loss, nats")


def _readability(name: str, measure: Measure) -> Score:
    metric = next((metric for metric in METRICS if metric.name == name), None)
    if metric is None:  # of the user
        metric = Metric(name, lambda _: None, measure.better, name.replace("_", " "), "")
    title, written, meaning, main = metric.label, _WRITTEN[metric.written], metric.words, metric.main
    return Score("readability", title, written(measure.value), _levels(measure, written), measure.better, meaning, main)


def _levels(measure: Measure, written: Callable[[float | None], str]) -> str:
    levels = (("people", measure.human), ("shuffled", measure.shuffled), ("random", measure.random))
    return ", ".join(f"{name} {written(level)}" for name, level in levels if level is not None)
