"""The rows of a training batch, moved so that no attention mask is needed, and the columns that have a label.

Behind the prompt each row begins with its first token of text and has its padding last, where causal attention never
looks. What the shape of the work depends on (do all rows begin with BOS, how many labels has a row at most) is counted
on the device: `RowCounts`. A `StepPlan` is made of those counts, or guessed and compared with them afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from peft_interp.text.placement import IGNORED


@dataclass(frozen=True)
class RowCounts:
    """What a batch of rows needs, in numbers.

    Attributes:
        leading: rows that begin with a leading token (BOS), the same in all of them.
        differing: rows whose leading token is not that of the first row.
        unattended: columns of padding in the batch.
        irregular: labels at or right after padding, and rows with padding inside the text, which only the plain pass
            treats as stock PEFT does.
        labels: labels of the row that has most.
        longest: tokens of the longest row, without a leading token.
    """

    leading: int
    differing: int
    unattended: int
    irregular: int
    labels: int
    longest: int


@dataclass(frozen=True)
class StepPlan:
    """The shape of a step's work.

    Attributes:
        leading: all rows begin with the same leading token.
        padded: rows may have padding.
        labels: columns of each row that the head runs on; None for all of them.
        columns: text columns of each row that the model runs on.
    """

    leading: bool
    padded: bool
    labels: int | None
    columns: int

    def covers(self, other: StepPlan) -> bool:
        """Whether a step with this plan has the result of one with `other`, which fits the batch exactly."""
        return (
            self.leading == other.leading
            and self.padded >= other.padded
            and self.columns >= other.columns
            and (self.labels is None or (other.labels is not None and self.labels >= other.labels))
        )

    def joined(self, other: StepPlan) -> StepPlan:
        """The least plan that covers both, save that rows begin as in `other`."""
        known = None if self.labels is None or other.labels is None else max(self.labels, other.labels)
        return StepPlan(other.leading, self.padded or other.padded, known, max(self.columns, other.columns))


def plan_for(counts: RowCounts, batch: int, length: int, exact: bool) -> StepPlan | None:
    """The plan that fits a batch.

    Args:
        counts: of the batch.
        batch: rows.
        length: columns of the batch.
        exact: cut the columns to the longest row and run the head on as few as possible; otherwise leave room, so that
            the plan is likely to fit the next batch as well.

    Returns:
        None where only the plain pass will do: rows that begin differently, labels among padding.
    """
    if counts.irregular or counts.differing or counts.leading not in (0, batch):
        return None
    leading = counts.leading == batch and batch > 0
    columns = max(1, counts.longest) if exact else length - leading
    labels = counts.labels if exact else 1 << max(0, counts.labels - 1).bit_length()
    labels = max(1, labels)
    return StepPlan(leading, counts.unattended > 0, labels if 2 * labels <= columns else None, max(1, columns))


@dataclass(frozen=True)
class TextRows:
    """A batch as the step sees it, all on the device.

    Attributes:
        labels: (batch, length), -100 in front of the text as well.
        order: (batch, length) columns with the text first and the padding last; None where the caller gave no mask.
        start: (batch,) first text column, after padding and leading token.
        leading: (1,) id of the first row's leading token, if it has one.
        counts: (6,) fp32, the fields of `RowCounts`.
    """

    labels: Tensor
    order: Tensor | None
    start: Tensor
    leading: Tensor | None
    counts: Tensor


def inspect_rows(
    ids: Tensor | None, mask: Tensor | None, labels: Tensor, leading_ids: Sequence[int], device: torch.device
) -> TextRows:
    """Look at a batch without telling the host anything.

    Args:
        ids: (batch, length), or None where the text is given as embeddings.
        mask: (batch, length) or None.
        labels: (batch, length).
        leading_ids: ids (BOS) that stay in front of the prompt where rows begin with them.
        device: where to count.
    """
    labels = labels.to(device)
    batch, length = labels.shape
    columns = torch.arange(length, device=device)
    attended = None if mask is None else mask.to(device).ne(0)
    first = labels.new_zeros(batch) if attended is None else attended.view(torch.uint8).argmax(dim=1)  # (batch,)
    start, leading, order = first, None, None
    leads = differing = unattended = irregular = labels.new_zeros((), dtype=torch.float32)
    if ids is not None and leading_ids:
        found = ids.to(device).gather(1, first.unsqueeze(1)).squeeze(1)  # (batch,)
        has = found == leading_ids[0]
        for other in leading_ids[1:]:
            has = has | (found == other)
        start, leading, leads = first + has, found[:1], _count(has)
        if len(leading_ids) > 1:
            differing = _count(has & (found != found[:1]))
    text = columns >= start.unsqueeze(1)  # (batch, length)
    labels = labels.where(text, IGNORED)
    valid = labels != IGNORED
    if attended is not None:
        text = text & attended
        unattended = batch * length - _count(attended)
        # each row is one run of tokens, and only tokens have labels
        runs = _count(attended[:, 1:] > attended[:, :-1]) + _count(attended[:, :1])
        irregular = _count(valid > attended) + (runs - batch).abs()
        order = text.view(torch.uint8).argsort(dim=1, descending=True, stable=True)
    most, longest = valid.sum(1).amax(), text.sum(1).amax()
    counts = torch.stack((leads, differing, unattended, irregular, most.float(), longest.float()))  # (6,)
    return TextRows(labels, order, start, leading, counts)


def _count(which: Tensor) -> Tensor:
    return which.sum(dtype=torch.float32)


def arranged(rows: TextRows, plan: StepPlan, values: Tensor) -> Tensor:
    """`values` (batch, length, ...) of the text in its new order, (batch, plan.columns, ...).

    What stands after a row's text is padding, or a leading token: nothing that a label may follow.
    """
    if rows.order is None or not plan.padded:
        return values[:, int(plan.leading) : int(plan.leading) + plan.columns]
    order = rows.order[:, : plan.columns].to(values.device)
    if values.dim() == 3:
        return values.gather(1, order.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
    return values.gather(1, order)


def labelled_columns(labels: Tensor, predictors: Tensor, count: int | None) -> tuple[Tensor, Tensor]:
    """The labels that count, and where their predictions come from.

    Args:
        labels: (batch, length), -100 where nothing is to be predicted.
        predictors: (batch, length) for each label the place, among all the model's states, of the one that predicts it.
        count: labels of each row to keep, at least as many as any row has; None for all columns.

    Returns:
        Labels and places, each (batch * count,).
    """
    if count is None:
        return labels.flatten(), predictors.flatten()
    valid = (labels != IGNORED).int()
    columns = valid.argmax(dim=1, keepdim=True) if count == 1 else valid.topk(count, dim=1).indices
    return labels.gather(1, columns).flatten(), predictors.gather(1, columns).flatten()
