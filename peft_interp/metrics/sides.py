"""A prompt as it acts, its text, and nothing at all: three sides that the same rows are put to."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from peft_interp.context import check_room
from peft_interp.metrics.answers import Question, Side, batches
from peft_interp.metrics.reading import prompt_config
from peft_interp.metrics.rows import read_rows, task_of
from peft_interp.metrics.text_rows import PlacedRow, Row, token_texts, with_text
from peft_interp.metrics.totals import TaskTotals
from peft_interp.vocabulary import leading_token_ids, named_token_ids


@dataclass(frozen=True)
class Bench:
    """Rows, and the sides they are put to.

    Attributes:
        task: "CAUSAL_LM", "SEQ_2_SEQ_LM" or "SEQ_CLS".
        rows: the examples.
        prompt: the adapter as PEFT runs it, trained heads included.
        text: the base model, with the same heads.
        tokenizer: the base model's.
        length: tokens of the prompt.
        position: where it stands, "start" or "end".
        label_token_ids: see `TaskTotals`.
        batch_size: most rows at a time.
    """

    task: str
    rows: list[Row]
    prompt: Side
    text: Side
    tokenizer: Any
    length: int
    position: str
    label_token_ids: Sequence[int] | None
    batch_size: int

    def with_prompt(self, rows: Sequence[Row]) -> list[PlacedRow]:
        """Rows as the adapter gets them; columns are those of its output, the prompt's included."""
        placed = []
        for row in rows:
            lead = len(row.leading)
            columns = {j: lead + j + (self.length if j >= row.start else 0) for j in range(len(row.body))}
            placed.append(PlacedRow([*row.leading, *row.body], columns))
        return placed

    def with_text(self, rows: Sequence[Row], text: str, prompt_ids: Sequence[int]) -> list[PlacedRow]:
        """Rows with the text in the prompt's place, tokenised again."""
        return with_text(self.tokenizer, rows, text, prompt_ids)

    def predicted(self, row: Row, placed: PlacedRow) -> dict[int, int]:
        """Index of a label -> output column that predicts it."""
        if self.task == "SEQ_CLS":
            return {0: 0}
        return {k: k for k in range(len(row.labels))} if row.decoder_ids else placed.predicted(row.start)

    def question(self, row: Row, placed: PlacedRow, targets: Sequence[int], acts: bool = False) -> Question:
        """A row as a side is asked it; `acts` for the adapter, which may need labels to place the prompt."""
        known = self.predicted(row, placed)
        columns = [] if self.task == "SEQ_CLS" else [known[j] for j in targets]
        labels = [-100] * len(row.leading) + row.labels if acts and self.position == "end" else None
        return Question(placed.ids, columns, row.decoder_ids, labels)

    def wanted(self, row: Row, positions: str) -> list[int]:
        """Indices of the labels at which the sides are compared."""
        everything = positions == "all" and not row.decoder_ids and self.task == "CAUSAL_LM"
        return [j for j, label in enumerate(row.labels) if everything or label != -100]

    def names(self, choices: Sequence[int]) -> tuple[str, ...]:
        """What label words, or a classifier's classes, are called."""
        if self.task == "SEQ_CLS":
            return tuple(str(self.text.base.config.id2label[i]) for i in choices)
        return tuple(token_texts(self.tokenizer, choices))

    def check_room(self, placed: Sequence[PlacedRow], added: int = 0) -> None:
        """Refuse rows with prompt or text for which the model has no positions.

        Args:
            placed: the rows, in the order of `rows`.
            added: columns that the model adds to them (the prompt's).

        Raises:
            ValueError: the longest is longer than the model's learned positions.
        """
        lengths = [len(row.leading) + len(row.body) for row in self.rows]
        longest, own = max((len(p.ids) + added, length) for p, length in zip(placed, lengths, strict=True))
        check_room(self.text.base, longest - own, own)

    def batches(self, placed: Sequence[PlacedRow], targets: Sequence[Sequence[int]]) -> list[list[int]]:
        """Indices of rows, in batches of similar length."""
        width = getattr(self.text.base.config.get_text_config(), "vocab_size", 1)
        return batches([len(p.ids) for p in placed], [len(t) for t in targets], self.batch_size, width)


def make_bench(
    model: Any,
    tokenizer: Any,
    rows: Any,
    label_token_ids: Sequence[int] | None,
    batch_size: int,
    padding_side: str,
) -> Bench:
    """Both sides of the active adapter, and the rows.

    Raises:
        ValueError: a task type that cannot be compared, or unusable rows.
    """
    config, base = prompt_config(model), model.get_base_model()
    task, position = task_of(config), getattr(config, "prompt_position", "start")
    leading = set(leading_ids(tokenizer, base)) | set(getattr(config, "leading_token_ids", None) or ())
    pad = base.config.pad_token_id if base.config.pad_token_id is not None else tokenizer.pad_token_id
    causal = task == "CAUSAL_LM"
    counts = "position_ids" in inspect.signature(base.forward).parameters and (causal or hasattr(base, "score"))
    shared = {"base": base, "pad_id": pad or 0, "left": padding_side == "left", "classifies": task == "SEQ_CLS"}
    if task == "SEQ_CLS":
        _check_classes(base.config)
    return Bench(
        task=task,
        rows=read_rows(rows, task, base, sorted(leading), position),
        prompt=Side(call=model, extra=config.num_virtual_tokens if causal else 0, **shared),
        text=Side(call=base, states_positions=counts, **shared),
        tokenizer=tokenizer,
        length=config.num_virtual_tokens,
        position=position,
        label_token_ids=[] if task == "SEQ_CLS" else label_token_ids,
        batch_size=1 if task == "SEQ_CLS" and base.config.pad_token_id is None else batch_size,
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


def leading_ids(tokenizer: Any, base: Any) -> list[int]:
    """Ids that stay in front of a prompt: BOS and CLS, as the tokenizer and the model's config name them."""
    return sorted({*leading_token_ids(tokenizer), *named_token_ids(base.config, ("bos",))})


def count_task(totals: TaskTotals, logits: Tensor, rows: Sequence[Row], targets: Sequence[Sequence[int]]) -> None:
    """Add a batch's labelled positions to a side's task totals."""
    labels = [row.labels[j] for row, chosen in zip(rows, targets, strict=True) for j in chosen]
    totals.add(logits, labels, list(_first_labelled(rows, targets)))


def _first_labelled(rows: Sequence[Row], targets: Sequence[Sequence[int]]) -> Iterator[bool]:
    for row, chosen in zip(rows, targets, strict=True):
        first = next((j for j, label in enumerate(row.labels) if label != -100), None)
        yield from (j == first for j in chosen)
