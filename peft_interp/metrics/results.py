"""What the measures return: plain records, without models or tensors, that reports, cards and callbacks show."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from peft_interp.metrics.answer_results import AnsweredRows, AnswerShares
from peft_interp.metrics.uncertainty import Estimate
from peft_interp.records import short_repr
from peft_interp.text.placement import Placement, placement_named

_LISTED = ("token_effects", "as_prompt_shared", "answers", "answered", "paired")  # not shown on a screen
TEXT = "TEXT"  # the method of a prompt that was written by hand and is no adapter


TASK_MODEL = "task model"  # the judge where there is no other: the model that the prompt is for


@dataclass(frozen=True)
class Neighbour:
    """A vocabulary token near a prompt vector.

    Attributes:
        id: token id.
        text: its text, with a leading blank where it has one.
        cosine_distance: 1 - cosine, 0 (same direction) to 2.
    """

    id: int
    text: str
    cosine_distance: float


@dataclass(frozen=True, repr=False)
class TokenReading:
    """One place of a prompt, read as a token.

    Attributes:
        id: the token itself for a prompt of tokens, the nearest one for vectors.
        text: its text.
        cosine_distance: from the vector to that token's row, 0 to 2; 0 for a prompt of tokens.
        euclidean_distance: the same, in the table's units.
        neighbours: the nearest tokens, nearest first; of a prompt of tokens, the token itself comes first.
    """

    id: int
    text: str
    cosine_distance: float
    euclidean_distance: float
    neighbours: tuple[Neighbour, ...] = ()

    def __repr__(self) -> str:
        near = tuple(neighbour.text for neighbour in self.neighbours)
        return short_repr(
            "TokenReading", id=self.id, text=self.text, cosine_distance=self.cosine_distance, neighbours=near
        )


@dataclass(frozen=True, repr=False)
class PromptReading:
    """Any prompt adapter, read as text.

    Attributes:
        method: PEFT's name of the method: "INTERP_PROMPT", "PROMPT_TUNING", "P_TUNING", ...; "TEXT" for no adapter.
        text: the tokens' text.
        tokens: one entry for each place.
        discrete: every vector is exactly the row of its token, so the text is all there is.
        position: where the prompt stands, by the placement's name: "start" or "end" of the input.
        typical_cosine_distance: mean distance of a token of this table to the nearest other one: what "near" means.
        typical_euclidean_distance: the same for euclidean distance.
    """

    method: str
    text: str
    tokens: tuple[TokenReading, ...]
    discrete: bool
    position: str
    typical_cosine_distance: float
    typical_euclidean_distance: float

    def __repr__(self) -> str:
        away = [token.cosine_distance for token in self.tokens]
        return short_repr(
            "PromptReading",
            text=self.text,
            method=self.method,
            ids=self.ids,
            discrete=self.discrete,
            position=self.position,
            mean_cosine_distance=sum(away) / max(1, len(away)),
            typical_cosine_distance=self.typical_cosine_distance,
        )

    @property
    def placement(self) -> Placement:
        """Where the prompt stands."""
        return placement_named(self.position)

    @property
    def ids(self) -> list[int]:
        """Token ids, in order."""
        return [token.id for token in self.tokens]

    @property
    def is_text(self) -> bool:
        """Whether it was written by hand: no adapter acts, so there is nothing for the text to be faithful to."""
        return self.method == TEXT


@dataclass(frozen=True, repr=False)
class Performance:
    """Loss and accuracy on the task's labelled rows.

    Attributes:
        loss: mean cross-entropy of the labelled tokens, nats.
        accuracy: share of rows, 0 to 1, whose label token scores highest among the label words; None without label
            words.
    """

    loss: float
    accuracy: float | None = None

    def __repr__(self) -> str:
        return short_repr("Performance", loss=self.loss, accuracy=self.accuracy)


@dataclass(frozen=True)
class BaseChange:
    """What an adapter changed of the base model besides its prompt.

    Attributes:
        modules: names of modules that were trained with the prompt and act in place of the base model's.
        overwritten: names of the base model's tensors that the adapter's file overwrote.
        own_head: whether all of it is the head that the task needs anyway (a classifier).
        as_text: how the prompt's text alone does on the base model without the change; None where it was not measured.
    """

    modules: tuple[str, ...]
    overwritten: tuple[str, ...] = ()
    own_head: bool = False
    as_text: Performance | None = None


@dataclass(frozen=True)
class TokenEffect:
    """What happens when one token of the prompt's text is left out.

    Attributes:
        kl: mean KL(with || without) of the answer distributions, nats; 0 means the token does nothing.
        loss_increase: how much the task loss rises, nats; below 0 the token does harm.
        kl_error: standard error of `kl` over rows, nats; None where it is not known.
        loss_error: standard error of `loss_increase`, paired over rows, nats; None where it is not known.
        rows: number of rows both were measured on; 0 where it is not known.
    """

    kl: float
    loss_increase: float
    kl_error: float | None = None
    loss_error: float | None = None
    rows: int = 0


@dataclass(frozen=True)
class PairedEstimates:
    """What the rows say one by one: differences of two sides on the same row, with their standard errors.

    Attributes:
        kl: of `Faithfulness.kl`, nats.
        top1_agreement: of `Faithfulness.top1_agreement`, 0 to 1.
        text_loss: loss as text minus loss as prompt, nats.
        text_accuracy: accuracy as text minus accuracy as prompt, -1 to 1; None without label words.
        saved_loss: loss without a prompt minus loss with it, at the labels that both predict, nats; None where not
            measured.
        gained_accuracy: accuracy with the prompt minus accuracy without, -1 to 1; None where not measured.
    """

    kl: Estimate
    top1_agreement: Estimate
    text_loss: Estimate | None = None
    text_accuracy: Estimate | None = None
    saved_loss: Estimate | None = None
    gained_accuracy: Estimate | None = None


@dataclass(frozen=True, repr=False)
class Faithfulness:
    """Whether a prompt's text does what its vectors do (arXiv 2504.02144's three differentials, and more).

    All differences compare the prompt as it acts with its text, tokenised again in front of (or after) each input.

    Attributes:
        rows: rows compared.
        skipped_rows: rows whose answer is tokenised differently after the text, so that nothing can be compared.
        positions: "answers" (labelled positions only) or "all".
        cosine_distance: distance differential, mean over the prompt's tokens, 0 to 2; None where the method has no
            input vectors (prefix tuning).
        euclidean_distance: the same, in the table's units.
        logit_mse: output differential, mean squared difference of the logits.
        kl: mean KL(prompt || text) of the next-token distributions, nats, >= 0.
        js: mean Jensen-Shannon divergence, nats, 0 to ln 2.
        top1_agreement: share of positions, 0 to 1, with the same likeliest token.
        as_prompt: the task with the prompt as it acts.
        as_text: the task with the text in its place.
        without: the task with no prompt at all; None where not measured. A row's first token is then predicted by
            nothing where no BOS stands in front of it, and does not count; NaN where no other is labelled.
        token_error_rate: edit distance between the prompt's ids and the re-tokenised ones, per token, mean over rows;
            0 where the text survives.
        token_effects: one entry for each token, by leaving it out of the text; empty where not measured.
        as_prompt_shared: the task with the prompt at the labels that count in `without` too; None where those are all.
        answers: mean answers among the label words; None where these are not known.
        paired: differences row by row, with their standard errors; None in a record of an earlier version.
        label_bias: what was added to the label words' scores with prompt and text, nats; None: nothing.
        without_bias: what was added to them with no prompt; None: nothing.
        answered: which rows got which answers; None without label words, and in a record of an earlier version.
        loss_difference: performance differential |loss as prompt - loss as text|, nats.
        accuracy_difference: accuracy as prompt minus accuracy as text; None without label words.
    """

    rows: int
    skipped_rows: int
    positions: str
    cosine_distance: float | None
    euclidean_distance: float | None
    logit_mse: float
    kl: float
    js: float
    top1_agreement: float
    as_prompt: Performance
    as_text: Performance
    without: Performance | None
    token_error_rate: float
    token_effects: tuple[TokenEffect, ...] = ()
    as_prompt_shared: Performance | None = None
    answers: AnswerShares | None = None
    paired: PairedEstimates | None = None
    label_bias: tuple[float, ...] | None = None
    answered: AnsweredRows | None = None
    without_bias: tuple[float, ...] | None = None
    loss_difference: float = field(init=False)
    accuracy_difference: float | None = field(init=False)

    def __post_init__(self) -> None:
        prompt, text = self.as_prompt, self.as_text
        accuracies = None
        if prompt.accuracy is not None and text.accuracy is not None:
            accuracies = prompt.accuracy - text.accuracy
        object.__setattr__(self, "loss_difference", abs(prompt.loss - text.loss))
        object.__setattr__(self, "accuracy_difference", accuracies)

    def __repr__(self) -> str:
        shown = {part.name: getattr(self, part.name) for part in fields(self) if part.name not in _LISTED}
        effects = tuple(effect.kl for effect in self.token_effects) or None
        return short_repr("Faithfulness", **shown, token_effects_kl=effects)

    @property
    def beside_without(self) -> Performance:
        """What `without` is to be held against: the task with the prompt, at the same labels."""
        return self.as_prompt_shared or self.as_prompt


@dataclass(frozen=True)
class CalibratedSide:
    """One side of the comparison: the prompt, its text, or no prompt.

    Attributes:
        accuracy: share of rows, 0 to 1, answered right by the scores as they are.
        calibrated: the same with the side's own numbers added.
        bias: those numbers, one for each label word, nats.
    """

    accuracy: Estimate
    calibrated: Estimate
    bias: tuple[float, ...]


@dataclass(frozen=True, repr=False)
class LabelPrior:
    """What the label prior has to do with a prompt's gain. Differences are of accuracy, row by row, -1 to 1.

    Attributes:
        words: the label words.
        calibration: how the numbers were estimated, "batch", "content_free" or "fitted".
        calibration_rows: on how many rows (texts for "content_free"), never those measured.
        rows: rows measured.
        without: no prompt.
        as_text: the text; None where it is the prompt.
        as_prompt: the prompt as it acts.
        gain: the prompt as it is less no prompt as it is: what is usually reported.
        prior: no prompt calibrated less no prompt as it is: what numbers alone gain.
        beyond: the prompt calibrated less no prompt calibrated: what the prompt adds to that.
    """

    words: tuple[str, ...]
    calibration: str
    calibration_rows: int
    rows: int
    without: CalibratedSide
    as_text: CalibratedSide | None
    as_prompt: CalibratedSide
    gain: Estimate
    prior: Estimate
    beyond: Estimate

    @property
    def prior_share(self) -> float | None:
        """Share of the gain that numbers alone give, 0 to 1; None where there is no gain."""
        return min(max(self.prior.mean / self.gain.mean, 0.0), 1.0) if self.gain.mean > 0 else None

    def __repr__(self) -> str:
        sides = {"without": self.without, "as_text": self.as_text, "as_prompt": self.as_prompt}
        shown = {name: (s.accuracy.mean, s.calibrated.mean) for name, s in sides.items() if s is not None}
        return short_repr("LabelPrior", calibration=self.calibration, **shown, beyond=self.beyond.mean)


@dataclass(frozen=True, repr=False)
class Waywardness:
    """How far a soft prompt can solve the task while its nearest tokens say something unrelated (arXiv 2112.08348).

    Attributes:
        target_text: the text the prompt was trained to project to.
        projected_share: share of its tokens, 0 to 1, that do project to it.
        wayward: the task with the prompt so trained.
        target: the task with the target text itself.
    """

    target_text: str
    projected_share: float
    wayward: Performance
    target: Performance

    def __repr__(self) -> str:
        return short_repr("Waywardness", **{part.name: getattr(self, part.name) for part in fields(self)})


@dataclass(frozen=True, repr=False)
class Measure:
    """One readability measure beside what it is for prompts that people wrote.

    Attributes:
        value: the measure.
        human: its median over human-written prompts; None where no reference was measured.
        shuffled: its median over the same prompts with their tokens shuffled.
        random: its median over random tokens.
        percentile: share of human-written prompts, 0 to 100, that are no better; 50 is an average human prompt.
        better: "lower" or "higher".
    """

    value: float
    human: float | None = None
    shuffled: float | None = None
    random: float | None = None
    percentile: float | None = None
    better: str = "lower"

    def __repr__(self) -> str:
        return short_repr("Measure", **{part.name: getattr(self, part.name) for part in fields(self)})


@dataclass(frozen=True)
class Flag:
    """A pattern that makes a text unreadable or its perplexity misleading.

    Attributes:
        name: "repetition", "special_tokens", "blank", "punctuation", "no_words", "label_leak", "copied", ...
        words: what was found: "3 of 8 tokens repeat 'magazine'".
        unreadable: whether it alone makes the text unreadable (a leaked label word does not).
    """

    name: str
    words: str
    unreadable: bool = True


@dataclass(frozen=True, repr=False)
class Scrutability:
    """Whether a person can read a prompt's text.

    Attributes:
        text: what was judged.
        measures: by name; see `peft_interp.metrics.readability_metrics`.
        flags: degenerate patterns found.
        score: composite calibrated on human ratings, 0 (unreadable) to 1; NaN where the text cannot be judged. It says
            whether the text reads like English that people write, not what it is about or whether it is true.
        readable: the score passes its threshold and no flag makes the text unreadable.
        judge: whose score it is: "smollm2", "embedded", a judge of your own, or "task model".
        agreement: Spearman's rank correlation of that judge's score with people's ratings of acceptability, on
            sentences that it was not fitted on, -1 to 1.
    """

    text: str
    measures: dict[str, Measure]
    flags: tuple[Flag, ...]
    score: float
    readable: bool
    judge: str = TASK_MODEL
    agreement: float | None = None

    @property
    def verdict(self) -> str:
        """ "readable", "unreadable", or "unknown": too short, or in a language that the judge does not know."""
        if any(flag.unreadable for flag in self.flags):
            return "unreadable"
        if math.isnan(self.score):
            return "unknown"
        return "readable" if self.readable else "unreadable"

    def __repr__(self) -> str:
        return short_repr(
            "Scrutability",
            text=self.text,
            verdict=self.verdict,
            judge=self.judge,
            score=self.score,
            flags={flag.name: flag.words for flag in self.flags},
            measures={name: measure.value for name, measure in self.measures.items()},
        )


def as_plain(record: Any) -> Any:
    """A record as dictionaries, lists and numbers that JSON can hold; NaN and infinity become None."""
    return _finite(asdict(record))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
