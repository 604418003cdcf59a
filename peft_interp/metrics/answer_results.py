"""What the answers to rows were: how they are shared among label words, and which rows got which."""

from __future__ import annotations

from dataclasses import dataclass

from peft_interp.records import short_repr

TIED = -1  # the answer where several label words share the highest score


@dataclass(frozen=True, repr=False)
class AnswerShares:
    """What is answered, on the average row: probabilities of the label words among themselves.

    Attributes:
        label_token_ids: the label words' token ids, or a classifier's classes; the order of all that follows.
        label_words: what they are called: the tokens' texts, or the classes' names.
        rows: share of the rows whose answer each is, 0 to 1.
        as_prompt: mean probability of each with the prompt as it acts, 0 to 1; they sum to 1.
        as_text: the same with the text in its place.
        without: the same with no prompt; None where not measured.
    """

    label_token_ids: tuple[int, ...]
    label_words: tuple[str, ...]
    rows: tuple[float, ...]
    as_prompt: tuple[float, ...]
    as_text: tuple[float, ...]
    without: tuple[float, ...] | None = None

    def __repr__(self) -> str:
        shown = {name: getattr(self, name) for name in ("label_words", "rows", "as_prompt", "as_text", "without")}
        return short_repr("AnswerShares", **shown)


@dataclass(frozen=True)
class RowAnswers:
    """A row's label and what each side answers, as places in `AnswerShares.label_words`; `TIED` where none is highest.

    Attributes:
        label: what is right.
        as_prompt: the answer with the prompt as it acts.
        as_text: the answer with the text in its place.
        without: the answer with no prompt; None where it was not measured.
    """

    label: int
    as_prompt: int
    as_text: int
    without: int | None = None

    @property
    def differ(self) -> bool:
        """Whether the sides that were measured do not all answer the same."""
        return len({self.as_prompt, self.as_text, self.without} - {None}) > 1


@dataclass(frozen=True)
class AnswerPattern:
    """How many rows have the same label and the same answers.

    Attributes:
        answers: theirs.
        rows: how many.
    """

    answers: RowAnswers
    rows: int


@dataclass(frozen=True)
class AnsweredRow:
    """One row of the data, to be read.

    Attributes:
        row: its number in the data, from 0.
        text: what the model was given without the prompt; a long one is cut.
        answers: the answers.
    """

    row: int
    text: str
    answers: RowAnswers


@dataclass(frozen=True)
class AnsweredRows:
    """What was answered to which rows.

    Attributes:
        patterns: every label with every combination of answers that occurs, most frequent first.
        examples: rows that prompt, text and no prompt do not all answer alike.
    """

    patterns: tuple[AnswerPattern, ...]
    examples: tuple[AnsweredRow, ...] = ()
