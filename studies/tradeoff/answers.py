"""How a model answers rows after a prompt, the same for every kind of prompt: tokens, trained vectors, none.

Classification compares the label words; a tie counts as wrong. In a generation task the answer is right where greedy
decoding writes exactly the expected tokens, end mark included: that is so if and only if, with the expected answer in
front, each of its tokens is the likeliest one, which takes one pass instead of one for each token (a test compares
with `generate`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from peft_interp.inference.eval_mode import eval_mode
from peft_interp.scoring.task_scorer import TaskScorer
from peft_interp.text.label_prior import estimate_bias, with_bias
from peft_interp.text.verbalizer import right_answers
from studies.tradeoff.data import TaskData

_BATCH = 32
Row = dict[str, list[int]]


@dataclass(frozen=True)
class Answers:
    """What came out on some rows.

    Attributes:
        right: (rows,) bool.
        losses: (rows,) nats: of the label word among the label words, or per token of a written answer.
        log_probs: (rows, labels) of the label words among themselves, nats; None for a written answer.
        gold: (rows,) index of the right label; None for a written answer.
    """

    right: Tensor
    losses: Tensor
    log_probs: Tensor | None = None
    gold: Tensor | None = None

    def calibrated(self, training: Answers, calibration: str) -> Answers | None:
        """The same with the prompt's label prior taken away, estimated on training rows; None for written answers."""
        if self.log_probs is None or self.gold is None or training.log_probs is None:
            return None
        bias = estimate_bias(calibration, training.log_probs, training.gold)
        return _compared(with_bias(self.log_probs, bias), self.gold)

    @property
    def accuracy(self) -> float:
        """Share of right rows, 0 to 1."""
        return self.right.double().mean().item()

    @property
    def loss(self) -> float:
        """Mean loss, nats."""
        return self.losses.double().mean().item()


class PromptAnswers:
    """Answers on one split of a task, again and again.

    Args:
        model: the plain causal LM.
        data: the task.
        split: "train", "dev" or "test".
        leading: ids (BOS) that stay in front of a prompt.
    """

    def __init__(self, model: Any, data: TaskData, split: str, leading: Sequence[int] = ()) -> None:
        self.model, self.data, self.rows, self.leading = model, data, data.rows[split], list(leading)
        self.gold = torch.tensor(data.gold[split])
        self._scorer = (
            None if data.settings.generates else TaskScorer(model, self.rows, data.label_ids, leading_ids=self.leading)
        )

    def of_prompts(self, prompts: Sequence[Sequence[int]]) -> list[Answers]:
        """Prompts of tokens, in front of each row."""
        if not prompts:
            return []
        if self._scorer is not None:
            return [_compared(log_probs.cpu(), self.gold) for log_probs in self._scorer.label_log_probs(prompts)]
        return [self._written(self.model, [self._after(ids, row) for row in self.rows]) for ids in prompts]

    def of_adapter(self, adapter: Any) -> Answers:
        """A PEFT prompt adapter, as PEFT runs it."""
        if self.data.settings.generates:
            return self._written(adapter, self.rows)
        found = [_at_answer(logits, labels)[:, self.data.label_ids] for logits, labels in _run(adapter, self.rows)]
        return _compared(torch.cat(found).log_softmax(-1).cpu(), self.gold)

    def _after(self, ids: Sequence[int], row: Row) -> Row:
        begins = row["input_ids"][: len(self.leading)] == self.leading
        front = [*self.leading, *ids] if begins else list(ids)
        rest = row["input_ids"][len(self.leading) if begins else 0 :]
        labels = row["labels"][len(self.leading) if begins else 0 :]
        return {"input_ids": [*front, *rest], "labels": [*[-100] * len(front), *labels]}

    def _written(self, model: Any, rows: Sequence[Row]) -> Answers:
        right, losses = [], []
        for logits, labels in _run(model, rows):
            asked = labels != -100  # (batch, length)
            scores, wanted = logits[asked].float(), labels[asked]  # (answers' tokens, vocabulary)
            nll = torch.zeros(labels.shape, device=labels.device)
            wrong = torch.zeros_like(asked)
            nll[asked] = torch.nn.functional.cross_entropy(scores, wanted, reduction="none")
            wrong[asked] = scores.argmax(-1) != wanted
            right.append(~wrong.any(-1))
            losses.append(nll.sum(-1) / asked.sum(-1))
        return Answers(torch.cat(right).cpu(), torch.cat(losses).cpu())


def _compared(log_probs: Tensor, gold: Tensor) -> Answers:
    """Label words against each other; (rows, labels)."""
    losses = -log_probs.gather(1, gold.unsqueeze(1)).squeeze(1)
    return Answers(right_answers(log_probs, gold), losses, log_probs, gold)


def _run(model: Callable[..., Any], rows: Sequence[Row]) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of logits (batch, length, vocabulary), and the labels (batch, length) they predict, place by place."""
    device = next(model.parameters()).device  # type: ignore[attr-defined]
    with eval_mode(model):  # type: ignore[arg-type]
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            longest = max(len(row["input_ids"]) for row in part)
            ids = torch.tensor([row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in part])
            mask = torch.tensor([[i < len(row["input_ids"]) for i in range(longest)] for row in part]).long()
            labels = torch.tensor([row["labels"] + [-100] * (longest - len(row["labels"])) for row in part])
            logits = model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
            columns = logits[:, -longest - 1 :]  # the last prompt column predicts the first of the text, if it is there
            if columns.shape[1] == longest:
                columns = torch.nn.functional.pad(columns, (0, 0, 1, 0))
            yield columns[:, :-1], labels.to(device)


def _at_answer(logits: Tensor, labels: Tensor) -> Tensor:
    """(batch, vocabulary) logits of each row's first label."""
    place = (labels != -100).int().argmax(1)
    return logits[torch.arange(len(logits)), place]
