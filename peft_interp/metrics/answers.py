"""What a model answers: rows in, logits out, at the wanted positions only.

The two sides of a faithfulness measure are the same function with another model and other rows: the adapter exactly as
PEFT runs it on the bare rows, and the base model on rows that hold the text. The language-model head, the widest layer,
runs on the wanted positions alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from peft_interp.evaluating import own_precision
from peft_interp.layout import positions
from peft_interp.shared_prefix import tapped_head

_LOGIT_BYTES = 128 * 2**20  # most memory for one side's logits in fp32


@dataclass(frozen=True)
class Question:
    """One row as a side is asked it.

    Attributes:
        ids: input ids, without padding.
        columns: ascending columns of the unpadded output whose logits are wanted; of the decoder's output for an
            encoder-decoder; empty for a classifier, which answers once.
        decoder_ids: what the decoder is given; empty without one.
        labels: for each of `ids`, only where the model needs them to place the prompt (`prompt_position="end"`).
    """

    ids: list[int]
    columns: list[int]
    decoder_ids: list[int]
    labels: list[int] | None = None


@dataclass(frozen=True)
class Side:
    """One way to be asked.

    Attributes:
        call: the model's forward, by keyword.
        base: the base model whose head is used.
        extra: columns that `call` adds to the input (the prompt's).
        pad_id: id for padding.
        left: pad on the left.
        states_positions: give position ids that do not count padding; the adapter makes its own.
        classifies: one answer for each row, no columns.
    """

    call: Callable[..., Any]
    base: Any
    extra: int = 0
    pad_id: int = 0
    left: bool = False
    states_positions: bool = False
    classifies: bool = False

    def logits(self, questions: Sequence[Question]) -> Tensor:
        """(wanted, vocabulary) for a language model, rows in order; (batch, classes) for a classifier."""
        inputs = self._pad([q.ids for q in questions], self.pad_id)
        mask = self._pad([[1] * len(q.ids) for q in questions], 0)
        given = {"input_ids": inputs, "attention_mask": mask}
        if self.states_positions:
            given["position_ids"] = positions(mask)
        if questions[0].labels is not None:
            given["labels"] = self._pad([q.labels or [] for q in questions], -100)
        if questions[0].decoder_ids:
            width = max(len(q.decoder_ids) for q in questions)
            decoder = [q.decoder_ids + [self.pad_id] * (width - len(q.decoder_ids)) for q in questions]
            given["decoder_input_ids"] = torch.tensor(decoder, device=inputs.device)
            keep = self._keep(questions, width, [0] * len(questions))
        else:
            length = inputs.shape[1]
            offsets = [length - len(q.ids) if self.left else 0 for q in questions]
            keep = self._keep(questions, length + self.extra, offsets)
        with watched(self.base, None if self.classifies else keep.to(inputs.device)) as seen:
            self.call(**given, return_dict=True)
        return seen[0]

    def _keep(self, questions: Sequence[Question], width: int, offsets: list[int]) -> Tensor:
        keep = torch.zeros(len(questions), width, dtype=torch.bool)
        for i, (question, offset) in enumerate(zip(questions, offsets, strict=True)):
            keep[i, [column + offset for column in question.columns]] = True
        return keep

    def _pad(self, rows: Sequence[list[int]], value: int) -> Tensor:
        width = max(len(row) for row in rows)
        pads = [[value] * (width - len(row)) for row in rows]
        full = [p + row if self.left else row + p for row, p in zip(rows, pads, strict=True)]
        return torch.tensor(full, device=self.base.device)


@contextmanager
def watched(base: Any, keep: Tensor | None) -> Iterator[list[Tensor]]:
    """While open, the base model's logits are collected, computed only where `keep` (batch, length) is true.

    Whoever called the base model gets logits of the usual length but width 1, so that code that reorders them runs.
    Labels do not reach the base model, which would compare them with logits that are not there.
    """
    seen: list[Tensor] = []

    def without_labels(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "labels": None} if "labels" in kwargs else kwargs

    def collect(module: Any, args: Any, output: Any) -> Any:
        logits = output.logits
        if keep is None or base.get_output_embeddings() is None:
            seen.append(logits if keep is None else logits[keep])
        else:
            seen.append(logits[0])
            output.logits = logits.new_zeros(*keep.shape, 1)
        return output

    with ExitStack() as stack:
        if keep is not None and base.get_output_embeddings() is not None:
            stack.enter_context(tapped_head(base, keep))
        for handle in (
            base.register_forward_pre_hook(without_labels, with_kwargs=True),
            base.register_forward_hook(collect),
        ):
            stack.callback(handle.remove)
        yield seen


@contextmanager
def adapter_in_eval_mode(model: Any, adapter_name: str | None = None) -> Iterator[None]:
    """Evaluation mode and own precision, with the named adapter active; everything is as before afterwards."""
    modes = {module: module.training for module in model.modules()}
    gradients = {parameter: parameter.requires_grad for parameter in model.parameters()}
    active = getattr(model, "active_adapter", None)
    switch = adapter_name is not None and adapter_name != active
    try:
        if switch:
            model.set_adapter(adapter_name)
        model.eval()
        with own_precision(model):
            yield
    finally:
        if switch:
            model.set_adapter(active)
        for module, training in modes.items():
            module.training = training
        for parameter, required in gradients.items():
            parameter.requires_grad_(required)


def batches(weights: Sequence[int], wanted: Sequence[int], batch_size: int, vocabulary: int) -> list[list[int]]:
    """Indices of rows in batches of similar length, shortest first, whose logits fit a fixed amount of memory.

    Args:
        weights: length of each row.
        wanted: number of positions of each row whose logits are wanted.
        batch_size: most rows in a batch.
        vocabulary: width of the logits.
    """
    most = max(1, _LOGIT_BYTES // (4 * vocabulary))
    made: list[list[int]] = []
    room = 0
    for i in sorted(range(len(weights)), key=lambda i: weights[i]):
        if not made or len(made[-1]) == batch_size or wanted[i] > room:
            made.append([])
            room = most
        made[-1].append(i)
        room -= wanted[i]
    return made
