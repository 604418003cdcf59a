"""Classification as next-word prediction: a template around the text, one word per label."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from peft_interp.text.answers import check_told_apart, check_words, class_names, row_options
from peft_interp.text.label_bias import LabelBias, check_calibration
from peft_interp.text.placement import MARKED, Placement, placement_in
from peft_interp.text.rows import Rows, column_names
from peft_interp.text.template import (
    NoRoomError,
    Template,
    chat_template,
    check_row_text,
    check_template,
    columns_in,
    filler_id,
    plain_template,
)
from peft_interp.text.tokenization import check_tokenizer

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import EvalPrediction, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Verbalizer:
    """Turns rows and labels into inputs for a causal LM, and its logits into predictions.

    What is to be predicted is one of the `label_words`, one of a row's own `options`, or, without both, any text.

    Args:
        template: "{prompt} {text} It was", "{text} {prompt}", "Task: {prompt}\\n{premise} So {hypothesis}", say: the
            data's columns in braces, and `{prompt}`, which is what the adapter replaces. It stands at the beginning,
            with a blank or a line break after it ("{prompt} " is added where it is missing), at the end, with one in
            front of it, or inside. The answer follows the template after a blank.
            A blank in front of `{prompt}` is the one that the prompt's first token brings along; a line break is text.
        label_words: the word, or words, for label 0, 1, ...; left out where the labels are texts of their own. Words
            of several tokens are scored as sequences, by the sum of their tokens' log-probabilities.
        first_token: score a word of several tokens by its first one instead.
        calibration: how the label prior is taken away: "none", "batch", "content_free" or "fitted"; see
            `peft_interp.text.label_prior`. The numbers belong to a prompt: `calibrate` estimates them, searches do so
            for every prompt that they score, from training rows.
        chat: put the template into the tokenizer's chat. "user": all of it is the user's turn. "system": what is up to
            `{prompt}` is the system's turn, the rest the user's. The answer is the assistant's.
        options: multiple choice: the column with a row's own answers to choose from; labels are indices into them.
        label_names: what the data calls label 0, 1, ..., where its labels are strings other than the label words.

    Raises:
        ValueError: a template without a column, a prompt that melts with its neighbours, fewer than two label words,
            `options` beside label words, or not as many names as words.
    """

    template: str
    label_words: Sequence[str] = ()
    first_token: bool = False
    calibration: str = "none"
    chat: str | None = None
    options: str | None = None
    label_names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        check_calibration(self.calibration)
        check_row_text(self.template, "template")
        check_template(self.template, self.chat)
        if self.label_words != ():
            check_words(self.label_words)
        if self.options is not None and (self.label_words or self.first_token):
            raise ValueError(
                f"`options={self.options!r}` names the column of each row's own answers; leave out `label_words` "
                "(answers that are the same in all rows) and `first_token`."
            )
        if self.calibration != "none" and not self.label_words:
            raise ValueError(
                f"`calibration={self.calibration!r}` takes away the prior of label words, and there are none; give "
                "`label_words`, or leave it out."
            )
        names = self.label_names
        if names is not None and (not self.label_words or len({*names}) != len(self.label_words)):
            raise ValueError(
                f"`label_names={names!r}` must be what the data calls each of the label words "
                f"{list(self.label_words)}, in their order."
            )

    @classmethod
    def for_data(cls, template: str, dataset: Rows, label_column: str = "label", **settings: Any) -> Verbalizer:
        """With the data's own class names for label words; underlines are read as blanks.

        Args:
            template: as above.
            dataset: a `datasets.Dataset` or a list of rows.
            label_column: a `ClassLabel` column, whose names count in their order, or one of strings, in theirs.
            settings: as above.

        Raises:
            ValueError: labels that have no names.
        """
        names = class_names(dataset, label_column)
        return cls(template, [name.replace("_", " ") for name in names], label_names=list(names), **settings)

    @property
    def prompt_position(self) -> str:
        """Where the prompt stands: "start", "end" or "template"; `prompt_position` of an `InterpPromptConfig`."""
        return self.placement.name

    @property
    def placement(self) -> Placement:
        """Where the prompt stands."""
        return placement_in(self.template) if self.chat is None else MARKED

    @property
    def columns(self) -> list[str]:
        """The data's columns that the template asks for."""
        return columns_in(self.template)

    def fill(
        self, text: str | Mapping[str, Any], prompt: str = "", tokenizer: PreTrainedTokenizerBase | None = None
    ) -> str:
        """The template as the model reads it, without the label: `fill("Dull.", "Review:")`.

        A prompt after other text brings its own blank along, as `prompt_text` returns it: `fill("Dull.", " It was")`.
        A chat needs the tokenizer, whose markup it is.
        """
        return self._template(tokenizer).fill(self._values(text), prompt)

    def _template(self, tokenizer: PreTrainedTokenizerBase | None) -> Template:
        if self.chat is None:
            return plain_template(self.template)
        check_tokenizer(tokenizer)
        assert tokenizer is not None
        return chat_template(self.template, self.chat, tokenizer)

    def _values(self, row: str | Mapping[str, Any]) -> dict[str, str]:
        """Each column's text; one text is that of the only column.

        Raises:
            ValueError: no text, or braces that name no column of the row.
        """
        names = self.columns
        if not isinstance(row, Mapping):
            check_row_text(row)
            if len(names) > 1:
                raise ValueError(
                    f"`template={self.template!r}` asks for the columns {names}, and one text was given; give a row, "
                    f"a dict with these columns."
                )
            return {names[0]: row}
        if missing := [name for name in names if name not in row]:
            raise ValueError(
                f"`template={self.template!r}` asks for {', '.join(f'{{{name}}}' for name in missing)}, and the row "
                f"has no such column, only {sorted(map(str, row))}; write the name of one of these into the braces."
            )
        for name in names:
            check_row_text(row[name], name)
        return {name: row[name] for name in names}

    def row_of(self, row: Mapping[str, Any], text_column: str) -> Mapping[str, Any]:
        """A row of the data, in which `{text}` is the column named so by the user."""
        return {**row, "text": row[text_column]} if text_column in row else row

    def source_columns(self, text_column: str, label_column: str) -> list[str]:
        """The data's columns that are read, with `text_column` for `{text}`."""
        own = [text_column if name == "text" else name for name in self.columns]
        return [*own, label_column, *([] if self.options is None else [self.options])]

    def label_token_ids(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """The token that stands for each label.

        Raises:
            ValueError: a word is more than one token (unless `first_token`), two labels share a token, or there are no
                label words.
        """
        sequences = self.label_sequences(tokenizer)
        long = [word for word, ids in zip(self.label_words, sequences, strict=False) if len(ids) > 1]
        if long:
            raise ValueError(
                f"label words {long} are more than one token of this tokenizer, which `classify`, searches and reports "
                "score as sequences, but not this; choose other words, or say `first_token=True` to score them by "
                "their first token."
            )
        return [ids[0] for ids in sequences]

    def scored_ids(self, tokenizer: PreTrainedTokenizerBase) -> list[int] | None:
        """The token that stands for each label; None where labels are sequences, a row's own, or any text."""
        if not self.label_words:
            return None
        sequences = self.label_sequences(tokenizer)
        return [ids[0] for ids in sequences] if all(len(ids) == 1 for ids in sequences) else None

    def label_sequences(
        self, tokenizer: PreTrainedTokenizerBase, row: str | Mapping[str, Any] | None = None
    ) -> list[list[int]]:
        """The tokens of each label's word, or of each of the row's own options.

        Raises:
            ValueError: no label words and no options, or labels that cannot be told apart: the same tokens, or one
                label word that is the beginning of another, which could never win.
        """
        words, template = self.answers(row), self._template(tokenizer)
        pieces = [template.answer_ids(tokenizer, word) for word in words]
        pieces = [piece[:1] for piece in pieces] if self.first_token else pieces
        check_told_apart(words, pieces, self.first_token, may_begin_alike=self.options is not None)
        return pieces

    def answers(self, row: str | Mapping[str, Any] | None) -> list[str]:
        """What there is to choose from."""
        if self.label_words:
            return list(self.label_words)
        if self.options is None:
            raise ValueError(
                "this verbalizer's labels are texts of any kind, so there is nothing to choose from; give "
                "`label_words=[...]`, or name the column of a row's own answers with `options=`."
            )
        return row_options(row, self.options)

    def label_index(self, label: Any, row: str | Mapping[str, Any] | None = None) -> int:
        """A label as an index into the label words, or the row's options; it may be one of them or of `label_names`.

        Whole numbers stored as 0.0 and 1.0, as tables do it, count too.

        Raises:
            ValueError: no whole number, or one without a word (the -1 of unlabelled test sets, say); another string.
        """
        words = self.answers(row)
        if isinstance(label, str):
            names = words if self.label_names is None else list(self.label_names)
            alike = [i for i, name in enumerate(names) if name.strip().casefold() == label.strip().casefold()]
            found = [names.index(label)] if label in names else alike
            if len(found) != 1:
                raise ValueError(f"`label={label!r}` is none of {names}; mend it, or drop the row.")
            return found[0]
        most = len(words) - 1
        try:
            whole = isinstance(label, (float, np.floating)) and float(label).is_integer()
            index = int(label) if whole else operator.index(label)
        except TypeError:
            raise ValueError(
                f"`label={label!r}` is no whole number; number the labels 0 to {most}, in the order of the label words."
            ) from None
        if not 0 <= index <= most:
            raise ValueError(f"`label={label}` has no word; use 0 to {most} and drop other rows.")
        return index

    def encode(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text: str | Mapping[str, Any],
        label: Any,
        max_length: int | None = None,
        label_token_ids: Sequence[int] | Sequence[Sequence[int]] | None = None,
    ) -> dict[str, list[int]]:
        """One example for a causal LM: template, row and answer; only the answer is to be predicted.

        Args:
            tokenizer: the model's tokenizer; its BOS is put in front where it would do so.
            text: the example, or a row with all the template's columns; the longest column is cut at its end when the
                whole does not fit, never the template.
            label: see `label_index`; without label words and options the text that is to be written, which the
                tokenizer's EOS ends.
            max_length: most tokens, the prompt not counted. None: no limit.
            label_token_ids: what `label_token_ids(tokenizer)` or `label_sequences(tokenizer)` returned, to save asking
                again for every row.

        Returns:
            `input_ids`, `attention_mask` and `labels` (-100 everywhere but at the answer). Where the prompt stands
            inside, one column marks its place: its mask is 0.

        Raises:
            ValueError: no text (see `check_row_text`), a label without a word (see `label_index`), or no room for any
                text.
        """
        values = self._values(text)
        if not self.label_words and self.options is None:
            check_row_text(label, "label")
            end = tokenizer.eos_token_id
            answer = [*self._template(tokenizer).answer_ids(tokenizer, label), *([] if end is None else [end])]
        else:
            index = self.label_index(label, text)
            known = label_token_ids or self.label_sequences(tokenizer, text)
            found = known[index]
            answer = [found] if isinstance(found, int) else list(found)
        ids, mask = self._inputs(tokenizer, values, max_length, len(answer))
        return {
            "input_ids": ids + answer,
            "attention_mask": mask + [1] * len(answer),
            "labels": [-100] * len(ids) + answer,
        }

    def _inputs(
        self, tokenizer: PreTrainedTokenizerBase, values: Mapping[str, str], max_length: int | None, answer: int
    ) -> tuple[list[int], list[int]]:
        """Ids and mask of a row in at most `max_length` tokens, the answer's counted."""
        room = None if max_length is None else max_length - answer
        try:
            return self._template(tokenizer).encode(tokenizer, values, room)
        except NoRoomError:
            raise ValueError(
                f"`max_length={max_length}` leaves no room for text beside the template; allow more."
            ) from None

    def model_inputs(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rows: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]],
        max_length: int | None = None,
        padding_side: str = "left",
    ) -> dict[str, Tensor]:
        """Rows without an answer, as a batch for `model.generate(**inputs)` or `model(**inputs)`.

        Args:
            tokenizer: the model's tokenizer.
            rows: one text or row, or several.
            max_length: as for `encode`.
            padding_side: "left", as `generate` wants it, or "right".

        Returns:
            `input_ids` and `attention_mask`, (rows, length).

        Raises:
            ValueError: what `encode` raises, or another side.
        """
        check_tokenizer(tokenizer)
        if padding_side not in ("left", "right"):
            raise ValueError(f"`padding_side={padding_side!r}` is unknown; use 'left' or 'right'.")
        given = [rows] if isinstance(rows, str | Mapping) else list(rows)
        made = [self._inputs(tokenizer, self._values(row), max_length, 0) for row in given]
        width = max((len(ids) for ids, _ in made), default=0)
        pad = filler_id(tokenizer)
        columns = []
        for part, fill in ((0, pad), (1, 0)):
            pads = [[fill] * (width - len(row[part])) for row in made]
            both = [
                (p, row[part]) if padding_side == "left" else (row[part], p) for p, row in zip(pads, made, strict=True)
            ]
            columns.append(torch.tensor([[*a, *b] for a, b in both], dtype=torch.long))
        return dict(zip(("input_ids", "attention_mask"), columns, strict=True))

    def encode_dataset(
        self,
        tokenizer: PreTrainedTokenizerBase,
        dataset: Dataset,
        text_column: str = "sentence",
        label_column: str = "label",
        max_length: int | None = None,
    ) -> Dataset:
        """A `datasets.Dataset` of rows and labels as inputs for Trainer.

        Args:
            tokenizer: the model's tokenizer.
            dataset: the data set, a streaming one too.
            text_column: column with the template's `{text}`; its other braces name columns themselves.
            label_column: column with the label (see `label_index`), or with the text that is to be written.
            max_length: as for `encode`.

        Returns:
            A data set with the columns that `encode` makes.

        Raises:
            ValueError: no tokenizer, a column is missing, and what `encode` raises.
        """
        check_tokenizer(tokenizer)
        columns = column_names(dataset)
        self.check_columns(columns, text_column, label_column, "the data set")
        known = None if not self.label_words else self.label_sequences(tokenizer)
        told = {"desc": "Filling the template"} if hasattr(dataset, "__len__") else {}  # streams tell no progress
        return dataset.map(
            lambda row: self.encode(tokenizer, self.row_of(row, text_column), row[label_column], max_length, known),
            remove_columns=columns,
            **told,
        )

    def check_columns(self, columns: Iterable[str], text_column: str, label_column: str, what: str) -> None:
        """Refuse data without the columns that are asked for.

        Raises:
            ValueError: naming them, and those there are.
        """
        columns = list(columns)
        if missing := {*self.source_columns(text_column, label_column)} - {*columns}:
            raise ValueError(
                f"{what} has no column {sorted(missing)}, only {columns}; name its columns with `text_column=` (the "
                "template's {text}) and `label_column=`, and the others in the template's braces."
            )

    def label_scores(self, tokenizer: PreTrainedTokenizerBase) -> Callable[[Any, Any], Tensor]:
        """For Trainer's `preprocess_logits_for_metrics`: the label words' logits at the answer, (batch, labels)."""
        ids = self.label_token_ids(tokenizer)
        return lambda logits, labels: answer_logits(logits, labels)[:, ids]

    def accuracy(
        self, tokenizer: PreTrainedTokenizerBase, label_bias: LabelBias | None = None
    ) -> Callable[[EvalPrediction], dict[str, float]]:
        """For Trainer's `compute_metrics`: share of rows whose label word scores highest; a tie counts as wrong.

        Args:
            tokenizer: the model's tokenizer.
            label_bias: numbers to add to the label words' logits; None: the scores as they are.
        """
        ids = self.label_token_ids(tokenizer)
        added = 0.0 if label_bias is None else label_bias.tensor()

        def compute(prediction: EvalPrediction) -> dict[str, float]:
            scores, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
            answers = labels[np.arange(len(labels)), (labels != -100).argmax(1)]
            gold = np.array([ids.index(answer) for answer in answers])
            return {"accuracy": label_accuracy(torch.as_tensor(scores) + added, torch.as_tensor(gold))}

        return compute


def check_verbalizer(verbalizer: Any, placement: Placement) -> None:
    """Whether it is a `Verbalizer` whose template has the prompt where the adapter has it.

    Args:
        verbalizer: what the user passed.
        placement: where the adapter has its prompt.

    Raises:
        ValueError: label words without a template, something else, or a prompt that stands elsewhere.
    """
    if not isinstance(verbalizer, Verbalizer):
        raise ValueError(
            f"`verbalizer` is a {type(verbalizer).__name__} and must be a `Verbalizer`; pass template and label words "
            "as `Verbalizer('{prompt} {text} It was', label_words)`, say."
        )
    if verbalizer.placement != placement:
        raise ValueError(
            f"the template {verbalizer.template!r} has the prompt {verbalizer.placement.at}, but the "
            f"adapter's `prompt_position={placement.name!r}`; make them agree."
        )


def answer_logits(logits: Tensor | tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """Logits that predict each row's first labelled token.

    Args:
        logits: (batch, prompt + length, vocabulary), any prompt length including 0, or a tuple beginning with it.
        labels: (batch, length), -100 where nothing is to be predicted.

    Returns:
        (batch, vocabulary).
    """
    logits = logits[0] if isinstance(logits, tuple) else logits
    column = labels.ne(-100).int().argmax(dim=1) + logits.shape[1] - labels.shape[1] - 1
    return logits[torch.arange(len(logits), device=logits.device), column.to(logits.device)]


def right_answers(scores: Tensor, gold: Tensor) -> Tensor:
    """Whether each row's gold label scores strictly highest; a tie counts as wrong.

    Args:
        scores: (..., rows, labels).
        gold: (rows,) index of the right label.

    Returns:
        (..., rows) bool; False where a score is NaN.
    """
    gold = gold.to(scores.device).expand(scores.shape[:-1]).unsqueeze(-1)
    others = scores.scatter(-1, gold, -torch.inf).amax(-1)
    return scores.gather(-1, gold).squeeze(-1) > others


def label_accuracy(scores: Tensor, gold: Tensor) -> float:
    """Share of rows, 0 to 1, whose gold label scores strictly highest.

    Args:
        scores: (rows, labels).
        gold: (rows,).
    """
    return right_answers(scores, gold).float().mean().item()
