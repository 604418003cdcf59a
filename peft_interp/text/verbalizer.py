"""Classification as next-word prediction: a template around the text, one word per label."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from peft_interp.text.label_bias import LabelBias, check_calibration
from peft_interp.text.placement import PROMPT, TEXT, Placement, placement_in
from peft_interp.text.tokenization import adds_bos, check_tokenizer, encode_after

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Verbalizer:
    """Turns texts and labels into inputs for a causal LM, and its logits into predictions.

    Args:
        template: "{prompt} {text} It was", say, or "{text} {prompt}". `{prompt}` is what the adapter replaces. It
            stands at the beginning, with a blank or a line break after it ("{prompt} " is added where it is missing),
            or at the end, with one in front of it. The label's word follows the template after a blank.
            A blank in front of `{prompt}` is the one that the prompt's first token brings along; a line break is text.
        label_words: the word for label 0, 1, ...
        first_token: score a word of several tokens by its first one, instead of refusing it.
        calibration: how the label prior is taken away: "none", "batch", "content_free" or "fitted"; see
            `peft_interp.text.label_prior`. The numbers belong to a prompt: `calibrate` estimates them, searches do so
            for every prompt that they score, from training rows.

    Raises:
        ValueError: a template without `{text}`, a prompt in the middle, fewer than two label words.
    """

    template: str
    label_words: Sequence[str]
    first_token: bool = False
    calibration: str = "none"

    def __post_init__(self) -> None:
        check_calibration(self.calibration)
        check_row_text(self.template, "template")
        if self.template.count("{text}") != 1:
            raise ValueError(f"`template={self.template!r}` must hold {{text}} exactly once.")
        opens, closes = self.template.startswith(PROMPT), self.template.rstrip().endswith(PROMPT)
        rest = self.template.removeprefix(PROMPT) if opens else self.template.rstrip().removesuffix(PROMPT)
        apart = not (opens or closes) or rest[0 if opens else -1].isspace()
        if PROMPT in rest or not apart:
            raise ValueError(
                f"`template={self.template!r}` may hold {{prompt}} only at its beginning, with a blank or a line break "
                "after it, or at its end, with one in front of it."
            )
        if "{label}" in rest:
            raise ValueError(f"`template={self.template!r}` ends where the label's word follows; leave {{label}} out.")
        words = self.label_words
        if not isinstance(words, list | tuple):  # of others (sets, say) the order is no label's
            raise ValueError(
                f"`label_words={words!r}` is a {type(words).__name__} and must be a list of at least two words, in the "
                "order of the labels 0, 1, ...; write them as a list."
            )
        if len(words) < 2 or not all(isinstance(word, str) and word.strip() for word in words):
            raise ValueError(f"`label_words={words!r}` must be a list of at least two words, one for each label.")
        for word in words:
            check_row_text(word, "label_words")

    @property
    def prompt_position(self) -> str:
        """Where the prompt stands, "start" or "end"; the value for `InterpPromptConfig(prompt_position=...)`."""
        return self.placement.name

    @property
    def placement(self) -> Placement:
        """Where the prompt stands."""
        return placement_in(self.template)

    def fill(self, text: str, prompt: str = "") -> str:
        """The template as the model reads it, without the label: `fill("Dull.", "Review:")`.

        A prompt at the end brings its own blank along, as `prompt_text` returns it: `fill("Dull.", " It was")`.
        """
        before, after = self._around_text()
        if self.placement.before_text:
            filled = self.placement.put(prompt, f"{before}{text}{after}").rstrip()
            return filled if prompt else filled.lstrip()
        line_break = after[len(after.rstrip()) :]
        return self.placement.put(prompt, f"{before}{text}{after}".strip() + line_break)

    def _around_text(self) -> tuple[str, str]:
        """What stands in front of the text (after the prompt), and what after the text (before the prompt)."""
        front, back = self.placement.around(self.template)
        before, after = (back.rstrip() if self.placement.before_text else front.lstrip()).split(TEXT)
        return before, after

    def label_token_ids(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """The token that stands for each label.

        Raises:
            ValueError: a word is more than one token (unless `first_token`), or two labels share a token.
        """
        pieces = [encode_after(tokenizer, " " + word.strip()) for word in self.label_words]
        long = [word for word, ids in zip(self.label_words, pieces, strict=True) if len(ids) > 1]
        if long and not self.first_token:
            raise ValueError(
                f"label words {long} are more than one token of this tokenizer; choose other words, or say "
                "`first_token=True` to score them by their first token."
            )
        ids = [piece[0] for piece in pieces]
        if len(set(ids)) < len(ids):
            raise ValueError(f"label words {list(self.label_words)} share a first token; they cannot be told apart.")
        return ids

    def label_index(self, label: Any) -> int:
        """A label as an index into `label_words`; whole numbers stored as 0.0 and 1.0, as tables do it, count too.

        Raises:
            ValueError: no whole number, or one without a word (the -1 of unlabelled test sets, say).
        """
        most = len(self.label_words) - 1
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
        text: str,
        label: int,
        max_length: int | None = None,
        label_token_ids: Sequence[int] | None = None,
    ) -> dict[str, list[int]]:
        """One example for a causal LM: template, text and label word; only the label is to be predicted.

        Args:
            tokenizer: the model's tokenizer; its BOS is put in front where it would do so.
            text: the example; cut at its end when the whole does not fit, never the template.
            label: index into `label_words`.
            max_length: most tokens, the prompt not counted. None: no limit.
            label_token_ids: what `label_token_ids(tokenizer)` returned, to save asking again for every row.

        Returns:
            `input_ids`, `attention_mask` and `labels` (-100 everywhere but at the label word).

        Raises:
            ValueError: no text (see `check_row_text`), a label without a word (see `label_index`), or no room for any
                text.
        """
        check_row_text(text)
        label = self.label_index(label)
        before, after = self._around_text()
        place = self.placement
        ids = place.encode_text(tokenizer, f"{before}{text}{after}".rstrip() if place.before_text else self.fill(text))
        bos = [tokenizer.bos_token_id] if adds_bos(tokenizer) else []
        if max_length is not None and len(bos) + len(ids) + 1 > max_length:
            head, tail = place.encode_text(tokenizer, before.rstrip()), encode_after(tokenizer, after)
            room = max_length - len(bos) - len(tail) - 1
            if room <= len(head):
                raise ValueError(f"`max_length={max_length}` leaves no room for text beside the template; allow more.")
            ids = ids[:room] + tail
        ids = [*bos, *ids, (label_token_ids or self.label_token_ids(tokenizer))[label]]
        return {
            "input_ids": ids,
            "attention_mask": [1] * len(ids),
            "labels": [-100] * (len(ids) - 1) + ids[-1:],
        }

    def encode_dataset(
        self,
        tokenizer: PreTrainedTokenizerBase,
        dataset: Any,
        text_column: str = "sentence",
        label_column: str = "label",
        max_length: int | None = None,
    ) -> Any:
        """A `datasets.Dataset` of texts and labels as inputs for Trainer.

        Args:
            tokenizer: the model's tokenizer.
            dataset: the data set, a streaming one too.
            text_column: column with the text.
            label_column: column with the label, an index into `label_words`.
            max_length: as for `encode`.

        Returns:
            A data set with the columns that `encode` makes.

        Raises:
            ValueError: no tokenizer, a column is missing, and what `encode` raises.
        """
        check_tokenizer(tokenizer)
        columns = _columns(dataset)
        if missing := {text_column, label_column} - set(columns):
            raise ValueError(
                f"the data set has no column {sorted(missing)}, only {columns}; name its columns with "
                "`text_column=` and `label_column=`."
            )
        known = self.label_token_ids(tokenizer)
        told = {"desc": "Filling the template"} if hasattr(dataset, "__len__") else {}  # streams tell no progress
        return dataset.map(
            lambda row: self.encode(tokenizer, row[text_column], row[label_column], max_length, known),
            remove_columns=columns,
            **told,
        )

    def label_scores(self, tokenizer: PreTrainedTokenizerBase) -> Any:
        """For Trainer's `preprocess_logits_for_metrics`: the label words' logits at the answer, (batch, labels)."""
        ids = self.label_token_ids(tokenizer)
        return lambda logits, labels: answer_logits(logits, labels)[:, ids]

    def accuracy(self, tokenizer: PreTrainedTokenizerBase, label_bias: LabelBias | None = None) -> Any:
        """For Trainer's `compute_metrics`: share of rows whose label word scores highest; a tie counts as wrong.

        Args:
            tokenizer: the model's tokenizer.
            label_bias: numbers to add to the label words' logits; None: the scores as they are.
        """
        ids = self.label_token_ids(tokenizer)
        added = 0.0 if label_bias is None else label_bias.tensor()

        def compute(prediction: Any) -> dict[str, float]:
            scores, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
            answers = labels[np.arange(len(labels)), (labels != -100).argmax(1)]
            gold = np.array([ids.index(answer) for answer in answers])
            return {"accuracy": label_accuracy(torch.as_tensor(scores) + added, torch.as_tensor(gold))}

        return compute


def check_row_text(text: Any, name: str = "text") -> None:
    """Refuse what is no text, or holds half characters, which tokenizers cannot read.

    Raises:
        ValueError: None, a number, a list, ..., or a lone surrogate.
    """
    if text is None:
        raise ValueError(f"`{name}=None` is no text; fill it in or drop the row.")
    if not isinstance(text, str):
        raise ValueError(
            f"`{name}={text!r}` is a {type(text).__name__} and must be a string, as the model shall read it."
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise ValueError(
            f"`{name}` holds {half!r} at place {error.start}, half of a character; read the file again as UTF-8, or "
            "clean it with `text.encode('utf-8', 'replace').decode()`."
        ) from None


def _columns(dataset: Any) -> list[str]:
    """Names of a data set's columns; of a stream that does not know them, those of its first row.

    Raises:
        ValueError: several splits, or something that is no data set.
    """
    if isinstance(dataset, Mapping):
        raise ValueError(f"the data set has the splits {sorted(dataset)}; encode each, `dataset['train']` say.")
    if not hasattr(dataset, "map"):
        raise ValueError(
            f"`dataset` is a {type(dataset).__name__} and must be a data set; make one with "
            "`datasets.Dataset.from_list(rows)`, or encode each row with `encode`."
        )
    columns = dataset.column_names
    return list(columns) if columns is not None else list(next(iter(dataset), {}))


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
            f"the template {verbalizer.template!r} has the prompt at the {verbalizer.prompt_position}, but the "
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
