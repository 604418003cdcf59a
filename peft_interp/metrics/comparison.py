"""A prompt as it acts, its text, and nothing at all: three sides that the same rows are put to."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from peft import PeftConfig, PeftModel
from torch import Tensor

from peft_interp.inference.head import places_of, tapped_head
from peft_interp.inference.max_length import check_room
from peft_interp.inference.models import AnyModel, base_model_of
from peft_interp.inference.padding_habits import position_ids_for, reads_last_column
from peft_interp.metrics.differentials import LabelIds, TaskTotals
from peft_interp.metrics.reading import prompt_config
from peft_interp.metrics.text_rows import PlacedRow, with_text
from peft_interp.text.placement import IGNORED, Placement, placement_of
from peft_interp.text.rows import Row, Rows, read_rows
from peft_interp.text.tokenization import leading_token_ids, pad_token_id, token_texts
from peft_interp.tuner.task_types import names_where

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_LOGIT_BYTES = 128 * 2**20  # most memory for one side's logits in fp32
COMPARED_TASKS = tuple(names_where(compared=True))


@dataclass(frozen=True)
class LogitRequest:
    """One row of a forward pass: its token ids, and the positions whose logits are wanted.

    Attributes:
        ids: input ids, without padding.
        columns: ascending columns of the unpadded output whose logits are wanted; of the decoder's output for an
            encoder-decoder; empty for a classifier, which answers once.
        decoder_ids: what the decoder is given; empty without one.
        labels: for each of `ids`, only where the model needs them to place the prompt (right before the answer).
        mark: index into `ids` of what marks the prompt's place; None where nothing does.
    """

    ids: list[int]
    columns: list[int]
    decoder_ids: list[int]
    labels: list[int] | None = None
    mark: int | None = None


@dataclass(frozen=True)
class ModelRunner:
    """A forward pass, of the adapter or of its base model, that computes logits at the wanted positions only.

    Attributes:
        call: the model's forward, by keyword.
        base: the base model whose head is used.
        extra: columns that `call` adds to the input (the prompt's, less what marks its place).
        pad_id: id for padding.
        left: pad on the left.
        states_positions: give position ids that do not count padding; the adapter makes its own.
        classifies: one answer for each row, no columns.
    """

    call: Callable[..., Any]
    base: PreTrainedModel
    extra: int = 0
    pad_id: int = 0
    left: bool = False
    states_positions: bool = False
    classifies: bool = False

    def logits(self, questions: Sequence[LogitRequest]) -> Tensor:
        """(wanted, vocabulary) for a language model, rows in order; (batch, classes) for a classifier."""
        inputs = self._pad([q.ids for q in questions], self.pad_id)
        mask = self._pad([[int(i != q.mark) for i in range(len(q.ids))] for q in questions], 0)
        given = {"input_ids": inputs, "attention_mask": mask}
        if self.states_positions:
            given["position_ids"] = position_ids_for(self.base, mask)
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

    def _keep(self, questions: Sequence[LogitRequest], width: int, offsets: list[int]) -> Tensor:
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
def watched(base: PreTrainedModel, keep: Tensor | None) -> Iterator[list[Tensor]]:
    """While open, the base model's logits are collected, computed only where `keep` (batch, length) is true.

    Whoever called the base model gets logits of the usual length but width 1, so that code that reorders them runs.
    Labels do not reach the base model, which would compare them with logits that are not there.
    """
    seen: list[Tensor] = []
    thread = threading.get_ident()  # the base model may run in another one

    def without_labels(module: Any, args: Any, kwargs: dict[str, Any] | None = None) -> Any:
        if kwargs is None or "labels" not in kwargs or threading.get_ident() != thread:
            return None
        return args, {**kwargs, "labels": None}

    def collect(module: Any, args: Any, output: Any) -> Any:
        if threading.get_ident() != thread:
            return None
        logits = output.logits
        if keep is None or base.get_output_embeddings() is None:
            seen.append(logits if keep is None else logits[keep])
        else:
            seen.append(logits[0])
            output.logits = logits.new_zeros(*keep.shape, 1)
        return output

    with ExitStack() as stack:
        if keep is not None and base.get_output_embeddings() is not None:
            stack.enter_context(tapped_head(base, places_of(keep)))
        for handle in (
            base.register_forward_pre_hook(without_labels, with_kwargs=True),
            base.register_forward_hook(collect),
        ):
            stack.callback(handle.remove)
        yield seen


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


@dataclass(frozen=True)
class ComparisonSetup:
    """Rows, and the two models compared on them: the adapter with its prompt, the base model with the text.

    Attributes:
        task: "CAUSAL_LM", "SEQ_2_SEQ_LM" or "SEQ_CLS".
        rows: the examples.
        prompt: the adapter as PEFT runs it, trained heads included; `text` itself where no adapter stands for the text.
        text: the base model, with the same heads.
        tokenizer: the base model's.
        length: tokens of the prompt.
        placement: where it stands.
        label_token_ids: see `TaskTotals`.
        batch_size: most rows at a time.
        label_bias: added to the label words' scores with the prompt and with its text, see `TaskTotals`.
        without_bias: likewise, with no prompt.
    """

    task: str
    rows: list[Row]
    prompt: ModelRunner
    text: ModelRunner
    tokenizer: PreTrainedTokenizerBase
    length: int
    placement: Placement
    label_token_ids: LabelIds | None
    batch_size: int
    label_bias: Sequence[float] | None = None
    without_bias: Sequence[float] | None = None

    @property
    def is_text(self) -> bool:
        """Whether a plain text is measured, so that there is no adapter."""
        return self.prompt is self.text

    def as_prompt(self, rows: Sequence[Row]) -> list[PlacedRow]:
        """Rows as the adapter gets them; columns are those of its output, the prompt's included."""
        placed = []
        for row in rows:
            lead = len(row.leading)
            columns = {j: lead + j + (self.length if j >= row.start else 0) for j in range(len(row.ids))}
            mark = [self.text.pad_id] * self.placement.marked
            placed.append(PlacedRow([*row.before, *mark, *row.after], columns))
        return placed

    def as_text(self, rows: Sequence[Row], text: str, prompt_ids: Sequence[int]) -> list[PlacedRow]:
        """Rows with the text in the prompt's place, tokenised again."""
        return with_text(self.tokenizer, rows, text, prompt_ids)

    def predicted(self, row: Row, placed: PlacedRow) -> dict[int, int]:
        """Index of a label -> output column that predicts it."""
        if self.task == "SEQ_CLS":
            return {0: 0}
        return {k: k for k in range(len(row.labels))} if row.decoder_ids else placed.predicted(row.start)

    def request(self, row: Row, placed: PlacedRow, targets: Sequence[int], as_prompt: bool = False) -> LogitRequest:
        """The forward pass of a row; `as_prompt` for the adapter, which may need labels to place its prompt."""
        known = self.predicted(row, placed)
        columns = [] if self.task == "SEQ_CLS" else [known[j] for j in targets]
        shown = as_prompt and self.placement.before_answer
        labels = [*[IGNORED] * len(row.leading), *row.labels] if shown else None
        mark = len(row.before) if as_prompt and self.placement.marked else None
        return LogitRequest(placed.ids, columns, list(row.decoder_ids), labels, mark)

    def wanted(self, row: Row, positions: str) -> list[int]:
        """Indices of the labels at which logits are compared."""
        everything = positions == "all" and not row.decoder_ids and self.task == "CAUSAL_LM"
        return [j for j, label in enumerate(row.labels) if everything or label != -100]

    def names(self, choices: Sequence[int]) -> tuple[str, ...]:
        """What label words, or a classifier's classes, are called."""
        if self.task == "SEQ_CLS":
            known = cast(dict[int, str], self.text.base.config.id2label)
            return tuple(str(known[i]) for i in choices)
        return tuple(token_texts(self.tokenizer, choices))

    def check_room(self, placed: Sequence[PlacedRow], added: int = 0) -> None:
        """Refuse rows with prompt or text for which the model has no positions.

        Args:
            placed: the rows, in the order of `rows`.
            added: columns that the model adds to them (the prompt's).

        Raises:
            ValueError: the longest is longer than the model's learned positions.
        """
        lengths = [row.length for row in self.rows]
        longest, own = max((len(p.ids) + added, length) for p, length in zip(placed, lengths, strict=True))
        check_room(self.text.base, longest - own, own)

    def batches(self, placed: Sequence[PlacedRow], targets: Sequence[Sequence[int]]) -> list[list[int]]:
        """Indices of rows, in batches of similar length."""
        width = getattr(self.text.base.config.get_text_config(), "vocab_size", 1)
        return batches([len(p.ids) for p in placed], [len(t) for t in targets], self.batch_size, width)


def task_of(config: PeftConfig) -> str:
    """The adapter's task type.

    Raises:
        ValueError: one that the measures cannot compare.
    """
    task = getattr(config.task_type, "value", config.task_type)
    if task not in COMPARED_TASKS:
        raise ValueError(
            f"`task_type={task!r}` is not compared with its text; use {', '.join(COMPARED_TASKS)}. `read_prompt` "
            "reads the text of any task's prompt."
        )
    return str(task)


def make_comparison(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    label_token_ids: LabelIds | None,
    batch_size: int,
    padding_side: str,
) -> ComparisonSetup:
    """The active adapter with its prompt and its base model with the text, to be compared on rows.

    Raises:
        ValueError: a task type that cannot be compared, or unusable rows.
    """
    config, base = prompt_config(model), base_model_of(model)
    task, placement = task_of(config), placement_of(config)
    leading = set(leading_token_ids(tokenizer, base.config)) | set(getattr(config, "leading_token_ids", None) or ())
    pad = _pad_id(base, tokenizer)
    causal = task == "CAUSAL_LM"
    counts = _states_positions(base, task)
    shared: dict[str, Any] = {"base": base, "pad_id": pad or 0, "left": padding_side == "left"}
    shared["classifies"] = task == "SEQ_CLS"
    if task == "SEQ_CLS":
        _check_classes(base.config)
    return ComparisonSetup(
        task=task,
        rows=read_rows(rows, sorted(leading), placement, task, base),
        prompt=ModelRunner(call=model, extra=config.num_virtual_tokens - placement.marked if causal else 0, **shared),
        text=ModelRunner(call=base, states_positions=counts, **shared),
        tokenizer=tokenizer,
        length=config.num_virtual_tokens,
        placement=placement,
        label_token_ids=[] if task == "SEQ_CLS" else label_token_ids,
        batch_size=1 if task == "SEQ_CLS" and pad_token_id(base.config) is None else batch_size,
    )


def make_text_comparison(
    model: AnyModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    label_token_ids: LabelIds | None,
    batch_size: int,
    placement: Placement,
) -> ComparisonSetup:
    """Rows for a text that no adapter stands for.

    Args:
        model: the base model, or an adapter on it, which is left out.
        tokenizer: its tokenizer.
        rows: as for `make_comparison`.
        label_token_ids: see `TaskTotals`.
        batch_size: most rows at a time.
        placement: where the text stands.

    Raises:
        ValueError: a model without a head whose answers can be compared, or unusable rows.
    """
    base = base_model_of(model)
    task = _task_of_head(base)
    if task == "SEQ_CLS":
        _check_classes(base.config)
    runner = _base_runner(base, tokenizer, task)
    return ComparisonSetup(
        task=task,
        rows=read_rows(rows, leading_token_ids(tokenizer, base.config), placement, task, base),
        prompt=runner,
        text=runner,
        tokenizer=tokenizer,
        length=0,
        placement=placement,
        label_token_ids=[] if task == "SEQ_CLS" else label_token_ids,
        batch_size=1 if task == "SEQ_CLS" and pad_token_id(base.config) is None else batch_size,
    )


def _task_of_head(base: PreTrainedModel) -> str:
    name = type(base).__name__
    if name.endswith("ForSequenceClassification"):
        return "SEQ_CLS"
    if not hasattr(base, "get_output_embeddings") or base.get_output_embeddings() is None or "MaskedLM" in name:
        raise ValueError(
            f"`model` is a {name}, which answers no rows that could be compared; pass a causal language model, an "
            "encoder-decoder with its language-model head, or a sequence classifier."
        )
    return "SEQ_2_SEQ_LM" if base.config.is_encoder_decoder else "CAUSAL_LM"


def _states_positions(base: PreTrainedModel, task: str) -> bool:
    """Whether position ids have to be given, so that padding does not shift a row: to decoders, with any head."""
    if "position_ids" not in inspect.signature(base.forward).parameters:
        return False
    return task == "CAUSAL_LM" or (task == "SEQ_CLS" and reads_last_column(base))


def _pad_id(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    named = pad_token_id(base.config)
    return named if named is not None else tokenizer.pad_token_id


def _base_runner(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: str) -> ModelRunner:
    pad = _pad_id(base, tokenizer)
    return ModelRunner(
        call=base,
        base=base,
        pad_id=pad or 0,
        states_positions=_states_positions(base, task),
        classifies=task == "SEQ_CLS",
    )


def _check_classes(config: Any) -> None:
    """One class out of several is what the measures compare."""
    if config.num_labels < 2:
        raise ValueError("a classifier with `num_labels=1` predicts a number, which is not compared; use two or more.")
    kind = getattr(config, "problem_type", None)
    if kind not in (None, "single_label_classification"):
        raise ValueError(
            f"a classifier with `problem_type={kind!r}` has no one class for each row, so its answers are not "
            "compared; use one with 'single_label_classification'."
        )


def count_task(
    totals: TaskTotals,
    logits: Tensor,
    rows: Sequence[Row],
    targets: Sequence[Sequence[int]],
    numbers: Sequence[int] | None = None,
) -> None:
    """Add a batch's labelled positions to a side's task totals; `numbers` are the rows', for what is told by row."""
    labels = [row.labels[j] for row, chosen in zip(rows, targets, strict=True) for j in chosen]
    owners = None if numbers is None else owners_of(numbers, targets)
    totals.add(logits, labels, list(_first_labelled(rows, targets)), owners)


def owners_of(numbers: Sequence[int], targets: Sequence[Sequence[int]]) -> list[int]:
    """(positions,) the number of the row that each position belongs to."""
    return [number for number, chosen in zip(numbers, targets, strict=True) for _ in chosen]


def _first_labelled(rows: Sequence[Row], targets: Sequence[Sequence[int]]) -> Iterator[bool]:
    for row, chosen in zip(rows, targets, strict=True):
        first = row.first
        yield from (j == first for j in chosen)
