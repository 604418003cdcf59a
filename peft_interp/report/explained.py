"""`ExplanationData`: which text explains a prompt, how far, and which do not; plain data, with its words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from peft_interp.report.texts import number, percent

TOO_FAR, AGAINST, APART, UNCALIBRATED, IDLE = "too far", "against", "apart", "uncalibrated", "idle"
ENOUGH = 0.5  # least share of the divergence that a text has to close: it leaves less than it explains
ALIGNED = 0.25  # least correlation with the prompt's label scores, row by row: about what 30 rows tell from chance
ALIKE = 0.7  # correlation from which rows are told apart as the prompt does, however strongly: half of the variance
LEAST_EFFECT = 0.005  # nats; a prompt that changes the answers less has no effect to be explained
LEAST_CALIBRATED = 0.02  # nats; below, the calibrated share is a share of next to nothing
REASONS = {
    TOO_FAR: "no text that was found comes near enough to what the prompt does",
    AGAINST: "the nearest texts act against the prompt: where it raises one label, they raise another",
    APART: "the nearest texts make the answers likelier but do not tell the rows apart as the prompt does",
    UNCALIBRATED: "the nearest texts make label words likelier, yet which label a row gets fits worse than without",
    IDLE: "the prompt changes next to nothing on these rows, so there is nothing to explain",
}


@dataclass(frozen=True)
class ExplanationCandidate:
    """A text and how near it comes to what the prompt does, on rows that did not find it.

    Attributes:
        text: as it stands in the prompt's place.
        source: where it was found.
        kl: KL(prompt || text) of the answers, nats; 0 where it does what the prompt does.
        kl_error: standard error of it over rows; None for fewer than two rows.
        share: of KL(prompt || no prompt) that it closes: 1 all, 0 none, below 0 it is worse than no prompt.
        search_kl: the same divergence on the rows that found it.
        calibrated_kl: KL over the label words with each side's mean label log-probabilities taken off; None without
            label words.
        calibrated_share: of the same with no prompt; may be anything where that is next to nothing.
        alignment: correlation of the calibrated label scores with the prompt's, -1 to 1; below 0 the text acts against
            the prompt.
        agreement: share of rows in which both sides' likeliest label is the same, 0 to 1.
    """

    text: str
    source: str
    kl: float
    kl_error: float | None
    share: float
    search_kl: float
    calibrated_kl: float | None = None
    calibrated_share: float | None = None
    alignment: float | None = None
    agreement: float | None = None

    @property
    def acts_against(self) -> bool:
        """Whether its label scores go down where the prompt's go up."""
        return self.alignment is not None and self.alignment < 0

    @property
    def alike(self) -> bool:
        """Whether it tells the rows apart as the prompt does, however strongly."""
        return self.alignment is not None and self.alignment >= ALIKE

    @property
    def worse(self) -> bool:
        """Whether which label a row gets fits worse than with no prompt, all labels' means taken off."""
        return self.calibrated_share is not None and self.calibrated_share < 0


@dataclass(frozen=True)
class LabelShares:
    """The mean probability of one label word among the label words, 0 to 1, on every side.

    Attributes:
        word: the label word.
        prompt: with the prompt.
        text: with the best candidate's text.
        nothing: with no prompt.
    """

    word: str
    prompt: float
    text: float
    nothing: float


@dataclass(frozen=True)
class LayerLikeness:
    """How alike the hidden states are that a prompt and a text leave in one layer.

    Cosines are means over rows, -1 to 1. CKA is linear centred kernel alignment (arXiv 1905.00414), 0 to 1: whether
    rows lie to each other in the same way; NaN where the states do not differ between rows.

    Attributes:
        layer: 0 for what enters the first block, then what leaves each.
        answer_cosine: at the position that predicts the answer.
        answer_cka: there.
        token_cosine: at the input's own tokens after the prompt; NaN where there are none.
        token_cka: there.
        nothing_cosine: at the answer's position, of the prompt and no prompt: what a text has to beat.
        prompt_cosine: at the prompt's own places; None where text and prompt have not equally many tokens.
    """

    layer: int
    answer_cosine: float
    answer_cka: float
    token_cosine: float
    token_cka: float
    nothing_cosine: float
    prompt_cosine: float | None = None


@dataclass(frozen=True)
class ActivationComparison:
    """Prompt and text, layer by layer.

    Attributes:
        text: what was held against the prompt.
        rows: rows compared.
        layers: from the first block's input to the last one's output.
        parts_at: the first layer whose cosine at the answer is below `limit`; None where none is.
        limit: below which states count as apart.
    """

    text: str
    rows: int
    layers: tuple[LayerLikeness, ...]
    parts_at: int | None
    limit: float

    def words(self) -> str:
        """Where they part, in a sentence without a full stop."""
        last = len(self.layers) - 1
        least = min(self.layers, key=lambda layer: layer.answer_cosine)
        if self.parts_at is None:
            return (
                f"the hidden states at the answer stay together through all {last} layers (cosine at least "
                f"{least.answer_cosine:.2f})"
            )
        return (
            f"the hidden states at the answer part in layer {self.parts_at} of {last} (cosine below {self.limit:g}); "
            f"least alike in layer {least.layer} (cosine {least.answer_cosine:.2f})"
        )


@dataclass(frozen=True, repr=False)
class ExplanationData:
    """What a prompt says, as the text that behaves most like it; no text where none does.

    Attributes:
        text: the explanation; None where none is shown, and `reason` says why.
        reason: a key of `REASONS`; "" where there is a text.
        candidates: texts with their scores, the best first; they explain nothing unless `text` names one.
        kl_without: KL(prompt || no prompt) of the answers, nats: what there is to explain.
        calibrated_kl_without: the same over label words after calibration; None without label words.
        rows: rows that judged.
        search_rows: rows that found the texts.
        evaluations: pairs of text and row that were run to find them; a gradient counts as three.
        method: PEFT's name of the prompt's method.
        labels: mean answers on every side; () without label words.
        activations: where the hidden states part; None where that was not looked at.
        context: where it comes from, as in a report.
    """

    text: str | None
    reason: str
    candidates: tuple[ExplanationCandidate, ...]
    kl_without: float
    calibrated_kl_without: float | None
    rows: int
    search_rows: int
    evaluations: int
    method: str
    labels: tuple[LabelShares, ...] = ()
    activations: ActivationComparison | None = None
    context: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> ExplanationCandidate | None:
        """The nearest candidate, whether it explains or not; the text's own where there is one."""
        return self.candidates[0] if self.candidates else None

    def conclusion(self) -> str:
        """Text or no text, and how much it explains; without a full stop."""
        if self.text is None or self.best is None:
            return f"No text explains this prompt: {REASONS.get(self.reason, self.reason)}"
        return (
            f"On {self.rows} rows this text does {percent(max(0.0, self.best.share))} of what the prompt does "
            f"(it closes {number(self.kl_without - self.best.kl, 3)} of {number(self.kl_without, 3)} nats)"
        )

    def unexplained(self) -> str:
        """What the best candidate leaves, in words and numbers; without a full stop."""
        best = self.best
        if best is None or self.reason == IDLE:
            return f"without a prompt the answers are {number(self.kl_without)} nats away"
        parts = [f"the nearest text leaves {number(best.kl, 3)} of {number(self.kl_without, 3)} nats"]
        if best.calibrated_kl is not None and self.calibrated_kl_without is not None:
            shown = self.text is not None and best.worse and best.alike
            strength = " (rows differ in the same way, and not as strongly or more so)" if shown else ""
            parts.append(
                f"calibrated, that is with each label's mean taken off, {number(best.calibrated_kl, 3)} of "
                f"{number(self.calibrated_kl_without, 3)}{strength}"
            )
        if self.labels:
            most = max(self.labels, key=lambda label: abs(label.prompt - label.text))
            if abs(most.prompt - most.text) >= 0.005:
                parts.append(
                    f"most of all the share of {most.word.strip()!r}: {percent(most.prompt)} with the prompt, "
                    f"{percent(most.text)} with the text, {percent(most.nothing)} with none"
                )
        if best.agreement is not None:
            parts.append(f"prompt and text choose the same label in {percent(best.agreement)} of the rows")
        return "; ".join(parts)


def why_no_text(candidate: ExplanationCandidate, kl_without: float, calibrated_kl_without: float | None) -> str:
    """Why a candidate is no explanation, as a key of `REASONS`; "" where it is one.

    A text that acts against the prompt, or that only makes label words likelier, never is, however much of the
    divergence it closes: a reader would believe the opposite of what the prompt does. One that tells the rows apart as
    the prompt does, and only more or less strongly, is an explanation; the strength is said beside it.
    """
    if kl_without < LEAST_EFFECT:
        return IDLE
    if candidate.acts_against:
        return AGAINST
    if candidate.share < ENOUGH:
        return TOO_FAR
    if candidate.alignment is not None and candidate.alignment < ALIGNED:
        return APART
    worse = candidate.worse and (calibrated_kl_without or 0.0) >= LEAST_CALIBRATED
    return UNCALIBRATED if worse and not candidate.alike else ""
