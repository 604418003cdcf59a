"""Whether a person can read a prompt's text (scrutability): metrics beside reference levels, patterns, a score.

The metrics, with what they are and which way is better, are the records in `metrics/readability_metrics.py`;
`print(metric_table())` shows them, and so does `docs/what_there_is.md`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_interp.embedded.encoder import TextEncoder
from peft_interp.inference.model_lock import locked
from peft_interp.inference.models import AnyModel
from peft_interp.metrics.flags import find_flags, language
from peft_interp.metrics.likelihood import language_model, mean_nll, token_nlls
from peft_interp.metrics.metric import InTemplate, Levels, Metric, MetricInputs, metric_inputs
from peft_interp.metrics.readability_judge import AUTO, ReadabilityJudge, find_judge
from peft_interp.metrics.readability_metrics import METRICS, measure_all, measure_tokens
from peft_interp.metrics.references import levels_after, reference_levels
from peft_interp.metrics.results import Scrutability
from peft_interp.text.tokenization import as_ids, check_text, check_texts, check_tokenizer, encode, leading_ids

COEFFICIENTS = Path(__file__).parent / "data" / "readability.json"
FAULTS = ("nll_position", "unknown_words", "repetition")
POSITION_RANGE = (-0.5, 2.0)


@dataclass(frozen=True)
class Calibration:
    """The fitted score.

    Attributes:
        intercept: log-odds of a text without a fault.
        coefficients: for each of `FAULTS`, >= 0.
        threshold: the score, 0 to 1, from which on a text counts as readable.
        provenance: script, data, date and the rule for the threshold.
    """

    intercept: float
    coefficients: dict[str, float]
    threshold: float
    provenance: dict[str, Any]

    def score(self, faults: Mapping[str, float]) -> float:
        """The composite, 0 (unreadable) to 1; NaN where a fault is NaN."""
        z = self.intercept - sum(self.coefficients[name] * faults[name] for name in FAULTS)
        return 1 / (1 + math.exp(-z))


@cache
def calibration() -> Calibration:
    """The published coefficients."""
    return Calibration(**json.loads(COEFFICIENTS.read_text(encoding="utf-8")))


def faults_of(measures: Mapping[str, float], english: bool = True) -> dict[str, float]:
    """The composite's inputs.

    Args:
        measures: `nll_position`, `dictionary_share` and `repetition`.
        english: False where the words are of another language and cannot be looked up.

    Returns:
        By `FAULTS`; `nll_position` is NaN where it could not be measured.
    """
    known, position = measures["dictionary_share"], measures["nll_position"]
    low, high = POSITION_RANGE
    return {
        "nll_position": position if math.isnan(position) else min(max(position, low), high),
        "unknown_words": 1 - known if english and not math.isnan(known) else 0.0,
        "repetition": measures["repetition"],
    }


@locked
def measure_scrutability(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str | None = None,
    ids: Sequence[int] | None = None,
    perplexity_model: PreTrainedModel | None = None,
    perplexity_tokenizer: PreTrainedTokenizerBase | None = None,
    template_text: str | None = None,
    label_words: Sequence[str] = (),
    training_texts: Sequence[str] = (),
    task_description: str | None = None,
    encoder: TextEncoder | None = None,
    grammar_judge: Callable[[str], float] | None = None,
    raters: Sequence[Callable[[str], float]] = (),
    references: bool = True,
    own_metrics: Sequence[Metric] = (),
    judge: ReadabilityJudge | str | None = AUTO,
) -> Scrutability:
    """Judge a prompt's text.

    The first call for a model and a length measures the reference levels; each costs a pass of model and judge.

    Args:
        model: the task's causal LM, or an adapter on it (then its base model judges, without the prompt in front).
        tokenizer: its tokenizer.
        text: the prompt; may be None where `ids` are given.
        ids: the prompt's own token ids, judged as they are, with their own text; the text is tokenised otherwise.
        perplexity_model: another causal LM, for `judge_nll` and `judge_gap`.
        perplexity_tokenizer: its tokenizer; the same as the model's by default.
        template_text: an example of the text around the prompt, "{prompt} The film was long. It was"; without
            "{prompt}" it stands after the prompt.
        label_words: words that the task answers with.
        training_texts: texts that the prompt should not be copied from.
        task_description: what the prompt is for, in words; compared by the `encoder`.
        encoder: a callable, or an object with `encode`, from a list of texts to one vector for each.
        grammar_judge: from a text to a number, higher is better.
        raters: people's or LLMs' ratings, each from a text to a number, higher is better; their mean is kept.
        references: measure reference levels. Without them there are no percentiles, and the task model gives no score.
        own_metrics: metrics of your own, measured beside `METRICS`.
        judge: whose score decides, as for `find_judge`: "auto" is SmolLM2 where it is installed, else the embedded
            model, which agrees less with people; "task" is the task model, by its NLL among reference levels.

    Returns:
        Measures by name, flags, score and verdict. NLL and score are NaN for a prompt of fewer than two tokens.

    Raises:
        ValueError: neither text nor ids, something else in the place of a text, ids, a list of texts or a tokenizer, no
            causal LM, or a task description without an encoder or the reverse.
    """
    _check_given(label_words, training_texts, task_description, encoder)
    text, ids = _text_and_ids(text, ids, tokenizer)
    base = language_model(model)
    metrics = (*METRICS, *own_metrics)
    inputs = _read(base, tokenizer, text, ids, references, metrics)
    other = perplexity_tokenizer or tokenizer
    judged = _under_another(perplexity_model, other, text, references and len(ids) > 1)
    placed = _in_template(base, tokenizer, ids, template_text, inputs.levels)
    inputs = replace(inputs, perplexity_model=judged, template=placed, training_texts=training_texts, raters=raters)
    inputs = replace(inputs, task_description=task_description, encoder=encoder, grammar_judge=grammar_judge)
    return _verdict(replace(inputs, label_words=label_words), metrics, find_judge(judge, base.device))


def _check_given(
    label_words: Any, training_texts: Any, task_description: str | None, encoder: TextEncoder | None
) -> None:
    check_texts("label_words", label_words)
    check_texts("training_texts", training_texts)
    if (encoder is None) != (task_description is None):
        raise ValueError("`encoder` and `task_description` belong together: pass both or neither.")


@locked
def scrutability_scores(
    model: AnyModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]]
) -> list[float]:
    """The scores of `measure_scrutability(judge="task")` for many prompts, from one pass of the model over all of them.

    Fast, for searches that score thousands; `readability_reward` is the reward by a judge that agrees with people.

    Args:
        model: as for `measure_scrutability`.
        tokenizer: its tokenizer.
        prompts: token ids of each.

    Returns:
        One number for each prompt, 0 (unreadable) to 1; NaN for fewer than two tokens, and under a model to which
        shuffled words are as likely as people's prompts.

    Raises:
        ValueError: no causal LM.
    """
    base = language_model(model)
    scores = []
    for ids, nlls in zip(prompts, token_nlls(base, prompts, leading_ids(tokenizer)), strict=True):
        text = str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))
        values = measure_tokens(tokenizer, ids, nlls, text)
        known = reference_levels(base, tokenizer, len(ids)).nll_position(values["nll"]) if len(ids) > 1 else math.nan
        scores.append(_score({**values, "nll_position": known}, language(text) is None))
    return scores


def _text_and_ids(
    text: str | None, ids: Sequence[int] | None, tokenizer: PreTrainedTokenizerBase
) -> tuple[str, list[int]]:
    """The prompt both ways; where text and ids do not agree, the ids count."""
    check_text("text", text)
    check_tokenizer(tokenizer)
    if text is None and ids is None:
        raise ValueError("`text=None` leaves nothing to judge; pass the prompt's text or its `ids`.")
    own = [] if text is None else tokenizer.encode(text, add_special_tokens=False)
    kept = own if ids is None else as_ids(ids, "ids").tolist()
    if text is not None and kept == own:
        return text, kept
    return str(tokenizer.decode(kept, clean_up_tokenization_spaces=False)), kept


def _verdict(inputs: MetricInputs, metrics: Sequence[Metric], judge: ReadabilityJudge | None) -> Scrutability:
    if judge is not None:
        inputs = replace(inputs, judge_reading=judge.read([inputs.text])[0])
    measures = measure_all(inputs, metrics)
    special = sum(i in inputs.special for i in inputs.ids)
    flags = find_flags(inputs.text, inputs.pieces, special, inputs.label_words, inputs.training_texts)
    english, flagged = all(f.name != "language" for f in flags), any(f.unreadable for f in flags)
    if judge is None or inputs.judge_reading is None:
        score = _score({name: measure.value for name, measure in measures.items()}, english)
        return Scrutability(inputs.text, measures, flags, score, score >= calibration().threshold and not flagged)
    score = inputs.judge_reading.score if english else math.nan  # a judge fitted on English says nothing of German
    readable, agreement = score >= judge.fit.threshold and not flagged, judge.fit.figures.get("acceptability_spearman")
    of_people = float(agreement[0]) if agreement else None
    return Scrutability(inputs.text, measures, flags, score, readable, judge.fit.judge, of_people)


def _score(values: Mapping[str, float], english: bool) -> float:
    return calibration().score(faults_of(values, english))


def _read(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    ids: Sequence[int],
    references: bool,
    metrics: Sequence[Metric] = METRICS,
) -> MetricInputs:
    """A prompt as one language model reads it, with that model's reference levels."""
    levels = reference_levels(base, tokenizer, len(ids), metrics) if references and len(ids) > 1 else None
    nlls = token_nlls(base, [ids], leading_ids(tokenizer))[0]
    return metric_inputs(tokenizer, ids, nlls, text, levels=levels)


def _under_another(
    model: AnyModel | None, tokenizer: PreTrainedTokenizerBase, text: str, references: bool
) -> MetricInputs | None:
    """The text as the perplexity model reads it."""
    if model is None:
        return None
    return _read(language_model(model), tokenizer, text, encode(tokenizer, text), references)


def _in_template(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ids: list[int],
    template_text: str | None,
    levels: Levels | None,
) -> InTemplate | None:
    if template_text is None:
        return None
    before, _, after = template_text.rpartition("{prompt}") if "{prompt}" in template_text else ("", "", template_text)
    front = encode(tokenizer, before) if before else []
    following = encode(tokenizer, after) if after else []
    nlls = token_nlls(model, [[*front, *ids, *following]], leading_ids(tokenizer))[0]  # token i + 1's at i
    start, end = max(len(front) - 1, 0), len(front) + len(ids) - 1
    if levels is not None and front:
        levels = levels_after(model, tokenizer, before, len(ids))
    after_it = mean_nll(nlls[max(end, 0) :]) if following else None
    return InTemplate(mean_nll(nlls[start:end]), after_it, levels)
