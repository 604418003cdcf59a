"""What a metric of a prompt's text is: its record, what it is computed from, and the levels it is held against."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from torch import Tensor

from peft_interp.embedded.encoder import TextEncoder
from peft_interp.metrics.readability_judge import JudgeReading
from peft_interp.metrics.results import Measure
from peft_interp.records import short_repr
from peft_interp.text.tokenization import decode, token_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REFERENCE_KINDS = ("human", "shuffled", "random")


@dataclass(frozen=True)
class MetricInputs:
    """A prompt and what was given to judge it by.

    Attributes:
        text: the prompt.
        ids: (prompt,) its token ids.
        pieces: the text of each token.
        nlls: (prompt - 1,) NLL in nats of the tokens from the second on, under the task model.
        special: ids that are no ordinary text.
        levels: the reference levels of this model and length; None for none.
        perplexity_model: the same text as another causal LM reads it; None without one.
        template: the prompt in its place; None without a template.
        judge_reading: what the judge of readability reads off the text; None without one.
        label_words, training_texts, task_description, encoder, grammar_judge, raters: as for `measure_scrutability`.
    """

    text: str
    ids: Sequence[int]
    pieces: Sequence[str]
    nlls: Tensor
    special: set[int]
    levels: Levels | None = None
    perplexity_model: MetricInputs | None = None
    template: InTemplate | None = None
    judge_reading: JudgeReading | None = None
    label_words: Sequence[str] = ()
    training_texts: Sequence[str] = ()
    task_description: str | None = None
    encoder: TextEncoder | None = None
    grammar_judge: Callable[[str], float] | None = None
    raters: Sequence[Callable[[str], float]] = ()

    @property
    def nll_per_character(self) -> float:
        """NLL in nats per character of the tokens it was measured on."""
        characters = sum(len(piece) for piece in self.pieces[1 : len(self.nlls) + 1])
        return self.nlls.sum().item() / characters if characters else math.nan


@dataclass(frozen=True)
class InTemplate:
    """A prompt in a template.

    Attributes:
        nll: per token of the prompt, given what stands in front of it.
        following_nll: per token of the text after it, given the prompt; None where there is none.
        levels: `nll` of human-written prompts in its place.
    """

    nll: float
    following_nll: float | None
    levels: Levels | None


@dataclass(frozen=True)
class Metric:
    """One number for a prompt's text.

    Attributes:
        name: in `Scrutability.measures`.
        function: the number, NaN where it cannot be measured; or a `Measure` with levels of its own; or None where it
            does not apply.
        better: "higher" or "lower".
        label: its name in reports.
        words: what it is, in a few words, with its unit.
        written: how reports write it: "number", "share" (0 to 1), "count" or "perplexity".
        needs: the field of `MetricInputs` that must be given; "" for none.
        referenced: measured on the reference prompts too, from their tokens and NLLs alone.
        main: stands in short tables as well.
    """

    name: str
    function: Callable[[MetricInputs], float | Measure | None]
    better: str
    label: str
    words: str
    written: str = "number"
    needs: str = ""
    referenced: bool = False
    main: bool = False


@dataclass(frozen=True, repr=False)
class Levels:
    """Every metric over the three kinds of reference prompts, for one model and length.

    Attributes:
        human: by metric, one value for each human-written prompt.
        shuffled: the same prompts with their tokens in random order.
        random: as many random allowed tokens.
    """

    human: dict[str, tuple[float, ...]]
    shuffled: dict[str, tuple[float, ...]]
    random: dict[str, tuple[float, ...]]

    def __repr__(self) -> str:
        medians = {kind: self.medians("nll")[kind] for kind in REFERENCE_KINDS}
        return short_repr("Levels", metrics=len(self.human), nll=medians)

    def medians(self, name: str) -> dict[str, float | None]:
        """Median of a metric for each kind; None where it was never a number."""
        return {kind: _median(getattr(self, kind).get(name, ())) for kind in REFERENCE_KINDS}

    def percentile(self, name: str, value: float, better: str = "lower") -> float | None:
        """Share of human-written prompts, 0 to 100, that are no better; None without values to compare.

        Args:
            name: of the metric.
            value: of the prompt.
            better: "higher" or "lower".
        """
        others = [other for other in self.human.get(name, ()) if not math.isnan(other)]
        if not others or math.isnan(value):
            return None
        sign = 1 if better == "higher" else -1
        return 100 * sum(sign * other <= sign * value for other in others) / len(others)

    def measure(self, name: str, value: float, better: str = "lower") -> Measure:
        """A value beside its reference levels; arguments as for `percentile`."""
        levels, percentile = self.medians(name), self.percentile(name, value, better)
        return Measure(value, levels["human"], levels["shuffled"], levels["random"], percentile, better)

    def nll_position(self, nll: float) -> float:
        """Where an NLL lies between human-written prompts (0) and the same prompts shuffled (1); lower is more fluent.

        In this unit models are comparable, and the composite was fitted in it. NaN for an unknown NLL, or under a
        model to which shuffled prompts are no less likely.
        """
        human, shuffled = self.medians("nll")["human"], self.medians("nll")["shuffled"]
        if human is None or shuffled is None or shuffled <= human:
            return math.nan
        return (nll - human) / (shuffled - human)


def _median(values: Sequence[float]) -> float | None:
    numbers = [value for value in values if not math.isnan(value)]
    return median(numbers) if numbers else None


def metric_inputs(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], nlls: Tensor, text: str | None = None, **given: Any
) -> MetricInputs:
    """A prompt as metrics see it.

    Args:
        tokenizer: the model's tokenizer.
        ids: (prompt,) token ids.
        nlls: (prompt - 1,) NLL in nats of the tokens from the second on.
        text: the prompt's text; decoded from the ids by default.
        given: other fields of `MetricInputs`.
    """
    known = decode(tokenizer, ids) if text is None else text
    return MetricInputs(known, ids, token_texts(tokenizer, ids), nlls, special_ids(tokenizer), **given)


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids that are no ordinary text: special tokens, and those added to the vocabulary."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {*tokenizer.all_special_ids, *added}
