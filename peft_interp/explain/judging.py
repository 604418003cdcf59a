"""How near texts come to what a prompt does, on rows: written into each row as a person would paste them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from peft_interp.explain.pool import Found
from peft_interp.explain.target import Target, ask
from peft_interp.metrics.differentials import kl_divergence
from peft_interp.metrics.text_rows import PlacedRow
from peft_interp.metrics.uncertainty import RowValues
from peft_interp.report.explained import ExplanationCandidate, LabelShares
from peft_interp.text.rows import Row


@dataclass(frozen=True)
class Bench:
    """Rows on which a text's answers are compared with the prompt's, and the divergence of no prompt's answers.

    Attributes:
        target: the rows.
        label_ids: (labels,) the label words' tokens; None without.
        kl_without: KL(prompt || no prompt), nats.
        calibrated_without: the same after calibration; None without label words.
    """

    target: Target
    label_ids: Tensor | None
    kl_without: float
    calibrated_without: float | None

    def judge(self, found: Found, search_kl: float) -> tuple[ExplanationCandidate, Tensor]:
        """A text's scores, and its answers, (answers, vocabulary) log-probabilities."""
        target, candidate = self.target, found.candidate
        answers = text_answers(target, candidate.text, candidate.ids)
        values = RowValues()
        values.add(target.owners.tolist(), kl_divergence(target.prompt, answers).tolist())
        estimate = values.estimate()
        assert estimate is not None
        share = 1 - estimate.mean / self.kl_without if self.kl_without > 0 else 0.0
        scores: dict[str, Any] = self._label_scores(answers)
        return ExplanationCandidate(
            *(candidate.text, found.source, estimate.mean, estimate.standard_error, share, search_kl), **scores
        ), answers

    def _label_scores(self, answers: Tensor) -> dict[str, float | None]:
        prompt, text = self.labels(self.target.prompt), self.labels(answers)
        if prompt is None or text is None or self.calibrated_without is None:
            return {}
        kl = calibrated_kl(prompt, text)
        least = self.calibrated_without
        return {
            "calibrated_kl": kl,
            "calibrated_share": 1 - kl / least if least > 0 else None,
            "alignment": alignment(prompt, text),
            "agreement": prompt.argmax(-1).eq(text.argmax(-1)).float().mean().item(),
        }

    def labels(self, answers: Tensor) -> Tensor | None:
        """(rows, labels) log-probabilities of the label words at each row's first answer; None without label words."""
        if self.label_ids is None:
            return None
        owners = self.target.owners
        first = torch.ones_like(owners, dtype=torch.bool)
        first[1:] = owners[1:] != owners[:-1]
        return answers[first][:, self.label_ids.to(answers.device)]

    def shares(self, answers: Tensor, words: Sequence[str]) -> tuple[LabelShares, ...]:
        """Mean answers on all sides, with the text's answers; () without label words."""
        sides = [self.labels(side) for side in (self.target.prompt, answers, self.target.nothing)]
        known = [side.log_softmax(-1).exp().mean(0).tolist() for side in sides if side is not None]
        return tuple(LabelShares(word, *values) for word, *values in zip(words, *known, strict=True)) if known else ()


def make_bench(target: Target, label_token_ids: Sequence[int] | None) -> Bench:
    """The divergence of no prompt's answers, from which a text's share is counted."""
    ids = None if label_token_ids is None else torch.tensor(list(label_token_ids))
    bench = Bench(target, ids, target.kl_of_nothing, None)
    prompt, nothing = bench.labels(target.prompt), bench.labels(target.nothing)
    if prompt is None or nothing is None:
        return bench
    return Bench(target, ids, target.kl_of_nothing, calibrated_kl(prompt, nothing))


def text_answers(target: Target, text: str, ids: Sequence[int]) -> Tensor:
    """(answers, vocabulary) log-probabilities of the base model with a text pasted into every row.

    A row in which text and neighbour melt into other tokens is given the text's own ids.
    """
    placed = target.setup.as_text(target.rows, text, ids)
    for number, (row, places) in enumerate(zip(target.rows, target.places, strict=True)):
        if not set(places) <= target.setup.predicted(row, placed[number]).keys():
            placed[number] = _as_ids(row, ids)
    return ask(target.setup, target.rows, target.places, placed, as_prompt=False)


def _as_ids(row: Row, ids: Sequence[int]) -> PlacedRow:
    lead = len(row.leading)
    columns = {j: lead + j + (len(ids) if j >= row.start else 0) for j in range(len(row.ids))}
    return PlacedRow([*row.before, *ids, *row.after], columns)


def calibrated(scores: Tensor) -> Tensor:
    """(rows, labels) log-probabilities over the labels with each label's mean over the rows taken off."""
    return (scores - scores.mean(0)).log_softmax(-1)


def calibrated_kl(prompt: Tensor, text: Tensor) -> float:
    """KL over the labels after calibration, nats, mean over rows; both (rows, labels) log-probabilities."""
    return kl_divergence(calibrated(prompt.double()), calibrated(text.double())).mean().item()


def alignment(prompt: Tensor, text: Tensor) -> float:
    """Correlation of two sides' label scores over rows and labels, after calibration, -1 to 1; 0 where one is constant.

    Each label's mean over the rows and each row's mean over the labels are taken off, so that what is left says which
    label a row speaks for.
    """
    first, second = (side.double() - side.double().mean(0) for side in (prompt, text))
    first, second = (side - side.mean(1, keepdim=True) for side in (first, second))
    norms = first.norm() * second.norm()
    return 0.0 if norms <= _CONSTANT else float((first * second).sum() / norms)


_CONSTANT = 1e-12
