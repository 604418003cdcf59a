"""What is measured on a prompt's text: one record for each metric in `METRICS`, from which tables and docs are made.

Perplexity is a proxy: repeats, special tokens, blanks and boilerplate score well on it, so each is looked for by itself
(`peft_interp.metrics.flags`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import peft_interp.metrics.text_metrics as text_metrics
from peft_interp.metrics.dictionary import dictionary_share
from peft_interp.metrics.likelihood import mean_nll
from peft_interp.metrics.metric import Levels, Metric, MetricInputs, metric_inputs
from peft_interp.metrics.results import Measure
from peft_interp.records import markdown_table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# -- metrics that are more than a call of a function of `text_metrics` ------------------------------------------------


def _nll_in_template(inputs: MetricInputs) -> float | Measure:
    template = inputs.template
    assert template is not None
    return template.nll if template.levels is None else template.levels.measure("nll", template.nll)


def _judge_nll(inputs: MetricInputs) -> float | Measure:
    other = inputs.perplexity_model
    assert other is not None
    nll = mean_nll(other.nlls)
    return nll if other.levels is None else other.levels.measure("nll", nll)


def _judge_gap(inputs: MetricInputs) -> float | Measure:
    """Far below 0 is a sign of gaming: each side less its own human median, where both are known."""
    other = inputs.perplexity_model
    assert other is not None
    gap = inputs.nll_per_character - other.nll_per_character
    if inputs.levels is None or other.levels is None:
        return gap
    usual, theirs = (levels.medians("nll_per_character")["human"] for levels in (inputs.levels, other.levels))
    if usual is None or theirs is None:
        return gap
    return Measure(gap - (usual - theirs), human=0.0, better="higher")


def _task_similarity(inputs: MetricInputs) -> float:
    encoder = inputs.encoder
    assert encoder is not None
    assert inputs.task_description is not None
    encode = encoder.encode if hasattr(encoder, "encode") else encoder
    vectors = [torch.as_tensor(v).float().flatten() for v in encode([inputs.text, inputs.task_description])]
    return torch.cosine_similarity(vectors[0], vectors[1], dim=0).item()


def _grammar(inputs: MetricInputs) -> float:
    assert inputs.grammar_judge is not None
    return float(inputs.grammar_judge(inputs.text))


def _special_share(inputs: MetricInputs) -> float:
    return sum(i in inputs.special for i in inputs.ids) / len(inputs.ids) if len(inputs.ids) else 0.0


METRICS = (
    Metric(
        name="nll",
        function=lambda x: mean_nll(x.nlls),
        better="lower",
        label="log-perplexity",
        words="mean surprise per token under the task model, nats",
        referenced=True,
        main=True,
    ),
    Metric(
        name="perplexity",
        function=lambda x: math.exp(mean_nll(x.nlls)),
        better="lower",
        label="perplexity",
        words="its exponential; a proxy that repeats and boilerplate fool",
        written="perplexity",
        referenced=True,
        main=True,
    ),
    Metric(
        name="nll_position",
        function=lambda x: x.levels.nll_position(mean_nll(x.nlls)) if x.levels is not None else math.nan,
        better="lower",
        label="position",
        words="0 as prompts people wrote, 1 as the same shuffled",
        main=True,
    ),
    Metric(
        name="nll_per_character",
        function=lambda x: x.nll_per_character,
        better="lower",
        label="nats per character",
        words="surprise that tokenizers share",
        referenced=True,
    ),
    Metric(
        name="worst_nll",
        function=lambda x: x.nlls.max().item() if len(x.nlls) else math.nan,
        better="lower",
        label="least likely token",
        words="its surprise, nats",
        referenced=True,
    ),
    Metric(
        name="nll_in_template",
        function=_nll_in_template,
        better="lower",
        label="in its template",
        words="log-perplexity where the prompt stands, nats",
        needs="template",
    ),
    Metric(
        name="following_nll",
        function=lambda x: x.template.following_nll if x.template else None,
        better="lower",
        label="of what follows",
        words="log-perplexity of the template after the prompt, nats",
        needs="template",
    ),
    Metric(
        name="judge_nll",
        function=_judge_nll,
        better="lower",
        label="log-perplexity, judge",
        words="under another language model, nats",
        needs="perplexity_model",
        main=True,
    ),
    Metric(
        name="judge_gap",
        function=_judge_gap,
        better="higher",
        label="judge's gap",
        words="far below 0: only the task model finds it likely",
        needs="perplexity_model",
        main=True,
    ),
    Metric(
        name="slor",
        function=lambda x: x.judge_reading.slor if x.judge_reading else None,
        better="higher",
        label="SLOR",
        words="likelihood less how common the words are, nats per token, under the judge of readability",
        needs="judge_reading",
    ),
    Metric(
        name="grammaticality",
        function=lambda x: x.judge_reading.grammar if x.judge_reading else None,
        better="higher",
        label="grammaticality",
        words="log-odds that no word is spoiled, read by a probe off the judge's states",
        needs="judge_reading",
    ),
    Metric(
        name="repetition",
        function=lambda x: text_metrics.repetition(x.pieces),
        better="lower",
        label="repeated tokens",
        words="share of tokens that stand earlier in the prompt",
        written="share",
        referenced=True,
        main=True,
    ),
    Metric(
        name="repetition_penalty",
        function=lambda x: text_metrics.repetition_penalty(x.pieces),
        better="lower",
        label="repetition penalty",
        words="grows with every further repeat (FLRT)",
        referenced=True,
    ),
    Metric(
        name="distinct_1",
        function=lambda x: text_metrics.distinct(x.pieces, 1),
        better="higher",
        label="distinct tokens",
        words="different tokens by all",
        written="share",
        referenced=True,
    ),
    Metric(
        name="distinct_2",
        function=lambda x: text_metrics.distinct(x.pieces, 2),
        better="higher",
        label="distinct pairs",
        words="different pairs of tokens by all",
        written="share",
        referenced=True,
    ),
    Metric(
        name="special_share",
        function=_special_share,
        better="lower",
        label="special tokens",
        words="share of tokens",
        written="share",
        referenced=True,
    ),
    Metric(
        name="blank_share",
        function=lambda x: text_metrics.blank_share(x.pieces),
        better="lower",
        label="blank tokens",
        words="share of tokens that show nothing",
        written="share",
        referenced=True,
    ),
    Metric(
        name="punctuation_share",
        function=lambda x: text_metrics.punctuation_share(x.pieces),
        better="lower",
        label="marks",
        words="share of tokens that are marks only",
        written="share",
        referenced=True,
    ),
    Metric(
        name="dictionary_share",
        function=lambda x: dictionary_share(text_metrics.words_of(x.text)),
        better="higher",
        label="words in a dictionary",
        words="share of words, English",
        written="share",
        referenced=True,
        main=True,
    ),
    Metric(
        name="whole_word_share",
        function=lambda x: text_metrics.whole_word_share(x.pieces),
        better="higher",
        label="whole words",
        words="share of letter tokens that are a word",
        written="share",
        referenced=True,
    ),
    Metric(
        name="ascii_share",
        function=lambda x: text_metrics.ascii_share(x.text),
        better="higher",
        label="ASCII",
        words="share of characters; says which alphabet",
        written="share",
        referenced=True,
    ),
    Metric(
        name="longest_copied",
        function=lambda x: float(text_metrics.longest_copied(x.text, x.training_texts)),
        better="lower",
        label="longest copy",
        words="words in a row that a training text has",
        written="count",
        needs="training_texts",
        main=True,
    ),
    Metric(
        name="copied_share",
        function=lambda x: text_metrics.copied_share(x.text, x.training_texts),
        better="lower",
        label="copied",
        words="share of words in copied runs of five and more",
        written="share",
        needs="training_texts",
    ),
    Metric(
        name="label_leak",
        function=lambda x: float(len(text_metrics.leaked_labels(x.text, x.label_words))),
        better="lower",
        label="label words",
        words="label words in the text",
        written="count",
        needs="label_words",
        main=True,
    ),
    Metric("grammar", _grammar, "higher", "grammar", "a grammar judge's verdict", needs="grammar_judge", main=True),
    Metric(
        name="task_similarity",
        function=_task_similarity,
        better="higher",
        label="like the task",
        words="similarity to the task's description, -1 to 1",
        needs="encoder",
        main=True,
    ),
    Metric(
        name="rating",
        function=lambda x: mean(float(rater(x.text)) for rater in x.raters),
        better="higher",
        label="rating",
        words="people's or models' ratings",
        needs="raters",
        main=True,
    ),
)


def measure_all(inputs: MetricInputs, metrics: Sequence[Metric] = METRICS) -> dict[str, Measure]:
    """Every metric whose needs are met, by name, beside its reference levels where these were measured."""
    found = {}
    for metric in metrics:
        if metric.needs and not getattr(inputs, metric.needs):
            continue
        value = metric.function(inputs)
        if value is not None:
            found[metric.name] = value if isinstance(value, Measure) else _beside_levels(metric, value, inputs.levels)
    return found


def _beside_levels(metric: Metric, value: float, levels: Levels | None) -> Measure:
    if levels is None or metric.needs:
        return Measure(value=value, better=metric.better)
    return levels.measure(metric.name, value, metric.better)


def measure_tokens(
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    nlls: Tensor,
    text: str | None = None,
    metrics: Sequence[Metric] = METRICS,
) -> dict[str, float]:
    """The metrics that need nothing but tokens and one pass of the language model; arguments as `metric_inputs`."""
    inputs = metric_inputs(tokenizer, ids, nlls, text)
    return {
        m.name: float(value) for m in metrics if m.referenced and isinstance(value := m.function(inputs), int | float)
    }


def metric_table() -> str:
    """`METRICS` as Markdown."""
    rows = [[f"`{m.name}`", m.label, m.words, m.better, f"`{m.needs}`" if m.needs else ""] for m in METRICS]
    return markdown_table(("name", "in reports", "what", "better", "needs"), rows)
