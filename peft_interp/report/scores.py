"""Every score of a report as one table row: value, what it is beside, which way is better, what it means."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from peft_interp.metrics.results import Faithfulness, Measure, PromptReading, Waywardness
from peft_interp.report.record import ReportData
from peft_interp.report.texts import count, number, perplexity, share


@dataclass(frozen=True)
class Score:
    """One row.

    Attributes:
        group: "task", "text against prompt" or "readability".
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


READABILITY: dict[str, tuple[str, Callable[[float | None], str], str]] = {
    "nll": ("log-perplexity", number, "mean surprise per token under the task model, nats"),
    "perplexity": ("perplexity", perplexity, "its exponential; a proxy that repeats and boilerplate fool"),
    "nll_position": ("position", number, "0 as prompts people wrote, 1 as the same shuffled"),
    "nll_per_character": ("nats per character", number, "surprise that tokenizers share"),
    "worst_nll": ("least likely token", number, "its surprise, nats"),
    "nll_in_template": ("in its template", number, "log-perplexity where the prompt stands, nats"),
    "following_nll": ("of what follows", number, "log-perplexity of the template after the prompt, nats"),
    "judge_nll": ("log-perplexity, judge", number, "under another language model, nats"),
    "judge_gap": ("judge's gap", number, "far below 0: only the task model finds it likely"),
    "repetition": ("repeated tokens", share, "share of tokens that stand earlier in the prompt"),
    "repetition_penalty": ("repetition penalty", number, "grows with every further repeat"),
    "distinct_1": ("distinct tokens", share, "different tokens by all"),
    "distinct_2": ("distinct pairs", share, "different pairs of tokens by all"),
    "special_share": ("special tokens", share, "share of tokens"),
    "blank_share": ("blank tokens", share, "share of tokens that show nothing"),
    "punctuation_share": ("marks", share, "share of tokens that are marks only"),
    "dictionary_share": ("words in a dictionary", share, "share of words, English"),
    "whole_word_share": ("whole words", share, "share of letter tokens that are a word"),
    "ascii_share": ("ASCII", share, "share of characters; says which alphabet"),
    "longest_copied": ("longest copy", count, "words in a row that a training text has"),
    "copied_share": ("copied", share, "share of words in copied runs"),
    "label_leak": ("label words", count, "label words in the text"),
    "grammar": ("grammar", number, "a grammar judge's verdict"),
    "task_similarity": ("like the task", number, "similarity to the task's description, -1 to 1"),
    "rating": ("rating", number, "people's or models' ratings"),
}
"""Measure -> (name, how its number is written, what it means); others are shown by their own name."""


def all_scores(report: ReportData) -> list[Score]:
    """Every score there is, task first."""
    rows: list[Score] = []
    if report.faithfulness is not None:
        rows += _task(report.faithfulness, report.reading)
    if report.faithfulness is not None and not report.reading.is_text:
        rows += _distances(report.faithfulness, report.reading)
        rows += _differentials(report.faithfulness)
    if report.waywardness is not None:
        rows += _wayward(report.waywardness)
    if report.scrutability is not None:
        rows.append(
            Score("readability", "readability score", number(report.scrutability.score), "0 to 1", "higher", _COMPOSITE)
        )
        rows += [_readability(name, measure) for name, measure in report.scrutability.measures.items()]
    return rows


_MAIN = {"nll", "perplexity", "nll_position", "judge_nll", "judge_gap", "repetition", "dictionary_share"}
_MAIN |= {"longest_copied", "label_leak", "grammar", "task_similarity", "rating"}
_AGAINST = "text against prompt"
_COMPOSITE = "several measures in one; tells text from word salad, nothing finer"


def _task(measured: Faithfulness, reading: PromptReading) -> Iterator[Score]:
    sides = (
        ("as prompt", None if reading.is_text else measured.as_prompt, "the prompt as it acts"),
        ("as text", measured.as_text, "the text in its place"),
        ("without", measured.without, "no prompt at all"),
    )
    for name, performance, meaning in sides:
        if performance is None or math.isnan(performance.loss):
            continue
        shared = measured.as_prompt_shared if name == "without" else None
        beside = f"as prompt {number(shared.loss)} at the same tokens" if shared is not None else ""
        if performance.accuracy is not None:
            yield Score("task", f"accuracy {name}", number(performance.accuracy), "", "higher", meaning)
        yield Score("task", f"loss {name}", number(performance.loss), beside, "lower", f"{meaning}, nats")


def _distances(measured: Faithfulness, reading: PromptReading) -> Iterator[Score]:
    """Of the vectors to their tokens, beside how far tokens lie from their nearest neighbours."""
    kinds = (
        ("cosine distance", measured.cosine_distance, reading.typical_cosine_distance, "0 to 2"),
        ("euclidean distance", measured.euclidean_distance, reading.typical_euclidean_distance, "the table's units"),
    )
    for name, value, typical, words in kinds:
        if value is not None:
            meaning = f"distance differential: mean over tokens, {words}"
            yield Score(_AGAINST, name, number(value), f"token to token {number(typical)}", "lower", meaning)


def _differentials(measured: Faithfulness) -> Iterator[Score]:
    group, exact = _AGAINST, "0 if the text is the prompt"
    yield Score(group, "loss difference", number(measured.loss_difference), exact, "lower", "performance differential")
    if measured.accuracy_difference is not None:
        words = "as prompt minus as text"
        yield Score(group, "accuracy difference", number(measured.accuracy_difference), exact, "", words)
    yield Score(group, "logit difference", number(measured.logit_mse), exact, "lower", "output differential, squared")
    yield Score(group, "KL divergence", number(measured.kl), exact, "lower", "prompt's answers from the text's, nats")
    yield Score(group, "Jensen-Shannon", number(measured.js), f"0 to {math.log(2):.2f}", "lower", "the same, bounded")
    yield Score(group, "same likeliest word", share(measured.top1_agreement), "100%", "higher", "share of positions")
    words = "share of tokens that come back otherwise"
    yield Score(group, "token error rate", share(measured.token_error_rate), "0%", "lower", words)


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
    main = name in _MAIN
    title, written, meaning = READABILITY.get(name, (name.replace("_", " "), number, ""))
    return Score("readability", title, written(measure.value), _levels(measure, written), measure.better, meaning, main)


def _levels(measure: Measure, written: Callable[[float | None], str]) -> str:
    levels = (("people", measure.human), ("shuffled", measure.shuffled), ("random", measure.random))
    return ", ".join(f"{name} {written(level)}" for name, level in levels if level is not None)
