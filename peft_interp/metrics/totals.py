"""Sums that grow batch by batch, in float64, so that no data set's logits are ever held at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from peft_interp.metrics.differentials import js_divergence, kl_divergence, logit_mse, top1_agreement
from peft_interp.metrics.results import Performance
from peft_interp.vocabulary import as_ids

_IDS_MADE_BY = "`verbalizer.label_token_ids(tokenizer)` from the label words"

_SLICE = 64  # positions compared at a time: bounds the copies that the comparison makes


class OutputTotals:
    """The output differentials of two sides, summed over positions."""

    def __init__(self) -> None:
        self.positions = 0
        self.sums = torch.zeros(4, dtype=torch.float64)  # mse, kl, js, agreement

    def add(self, logits: Tensor, others: Tensor) -> None:
        """Count two sides' logits at the same positions, (positions, vocabulary) each."""
        for first, second in zip(logits.split(_SLICE), others.split(_SLICE), strict=True):
            p, q = first.float().log_softmax(-1), second.float().log_softmax(-1)
            each = (
                logit_mse(first, second),
                kl_divergence(p, q),
                js_divergence(p, q),
                top1_agreement(first, second),
            )
            self.sums += torch.stack([x.double().sum() for x in each]).cpu()
        self.positions += len(logits)

    def means(self) -> list[float]:
        """Logit MSE, KL, Jensen-Shannon divergence and top-1 agreement, means over positions."""
        return (self.sums / max(1, self.positions)).tolist()


class TaskTotals:
    """Loss and accuracy of one side.

    Args:
        label_token_ids: the label words' ids; an empty list for all classes of a classifier; None for no accuracy.

    Raises:
        ValueError: no list of ids.
    """

    def __init__(self, label_token_ids: Sequence[int] | None) -> None:
        ids = label_token_ids
        self.choices = None if ids is None else as_ids(ids, "label_token_ids", _IDS_MADE_BY).tolist()
        self.loss = 0.0
        self.labels = self.rows = self.right = 0
        self.answered: Tensor | None = None  # (2, label words): sums of probabilities, and of right answers

    def add(self, logits: Tensor, targets: Sequence[int], first: Sequence[bool]) -> None:
        """Count labelled positions.

        Args:
            logits: (positions, vocabulary).
            targets: (positions,) label of each, -100 for none.
            first: (positions,) whether it is its row's answer, by which accuracy is judged.

        Raises:
            ValueError: an answer that is no label word.
        """
        gold = torch.tensor(targets, device=logits.device)
        losses = nn.functional.cross_entropy(logits.float(), gold, reduction="none", ignore_index=-100)
        self.loss += losses.double().sum().item()
        self.labels += sum(target != -100 for target in targets)
        if self.choices is None:
            return
        answers = torch.tensor([i for i, yes in enumerate(first) if yes], device=logits.device, dtype=torch.long)
        scores = logits[answers].float()
        wanted = gold[answers]
        if self.choices:
            known = torch.tensor(list(self.choices), device=logits.device)
            match = wanted.unsqueeze(1) == known  # (rows, labels)
            if not bool(match.any(dim=1).all()):
                strange = wanted[~match.any(dim=1)].unique().tolist()
                raise ValueError(
                    f"rows are labelled with token ids {strange}, which are not among `label_token_ids="
                    f"{list(self.choices)}`; pass the ids of all label words, or None for no accuracy."
                )
            scores, wanted = scores[:, known], match.int().argmax(dim=1)
        self.right += _right(scores, wanted)
        self.rows += len(answers)
        gold_shares = nn.functional.one_hot(wanted, scores.shape[1])
        sums = torch.stack([scores.double().softmax(dim=1).sum(dim=0), gold_shares.double().sum(dim=0)]).cpu()
        self.answered = sums if self.answered is None else self.answered + sums

    def performance(self) -> Performance:
        """Means so far; NaN where nothing was counted."""
        loss = self.loss / self.labels if self.labels else float("nan")
        return Performance(loss, self.right / self.rows if self.choices is not None and self.rows else None)

    def shares(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean probability of each label word among them, and the share of rows whose answer it is.

        None where nothing was counted.
        """
        if self.answered is None or not self.rows:
            return None
        answered, gold = (self.answered / self.rows).tolist()
        return tuple(answered), tuple(gold)


def _right(scores: Tensor, gold: Tensor) -> int:
    """Rows whose gold choice scores strictly highest; a tie counts as wrong."""
    best = scores.amax(dim=1, keepdim=True)
    unique = (scores == best).sum(dim=1) == 1
    return int(((scores.argmax(dim=1) == gold) & unique).sum())
