"""`ReportData`: everything known about one prompt, as plain data that is stored as JSON and read back."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any, Self, Union, get_args, get_origin, get_type_hints

from peft_interp.metrics.answer_results import TIED, AnsweredRow, AnsweredRows, AnswerPattern, RowAnswers
from peft_interp.metrics.results import (
    BaseChange,
    Faithfulness,
    LabelPrior,
    PromptReading,
    Scrutability,
    Waywardness,
    as_plain,
)
from peft_interp.metrics.task_naming import TaskNaming
from peft_interp.records import short_repr
from peft_interp.report.explained import ExplanationData
from peft_interp.report.texts import plain
from peft_interp.report.verdicts import ANSWERS, Verdict
from peft_interp.text.label_bias import LabelBias
from peft_interp.text.placement import PLACEMENTS

SCHEMA = 1
_SHOWN_LETTERS = 80  # of the prompt's text, in the representation
_NUMBERS = {int: int, float: (int, float)}


def shortened(words: str, letters: int) -> str:
    """At most so many letters, on one line."""
    shown = plain(words)
    return shown if len(shown) <= letters else shown[: letters - 3] + "..."


def rebuild(kind: Any, stored: Any, where: str = "report") -> Any:
    """A value of type `kind` from what `as_plain` made of it.

    A number that JSON cannot hold was stored as None and comes back as NaN. Keys that the record does not have are
    left out, so that a report of a later version with the same schema can be read, and so are those that it computes
    itself.

    Args:
        kind: a dataclass of records, numbers, strings, `tuple[X, ...]`, `dict[str, X]` and optional ones.
        stored: dictionaries, lists, numbers, strings.
        where: its place in the report, for messages.

    Raises:
        ValueError: something of another type stands there, or something is missing.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return stored
    if origin in (Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if stored is None else rebuild(inner, stored, where)
    if kind is float and stored is None:
        return math.nan
    _check_type(origin or kind, stored, where)
    if is_dataclass(kind):
        return _record(kind, stored, where)
    if origin is tuple:
        return tuple(rebuild(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(stored))
    if origin is dict:
        return {key: rebuild(arguments[1], item, f"{where}.{key}") for key, item in stored.items()}
    return float(stored) if kind is float else stored


_hints = cache(get_type_hints)


def _record(kind: Any, stored: Mapping[str, Any], where: str) -> Any:
    hints = _hints(kind)
    known = [field for field in fields(kind) if field.init and field.name in stored]
    values = {field.name: rebuild(hints[field.name], stored[field.name], f"{where}.{field.name}") for field in known}
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"`{plain(where)}` is incomplete: {plain(error)}; make the report again.") from None


def _check_type(kind: Any, stored: Any, where: str) -> None:
    wanted: Any = _NUMBERS.get(kind, kind)
    if is_dataclass(kind):
        wanted = Mapping
    elif kind is tuple:
        wanted = (list, tuple)
    if not isinstance(stored, wanted) or (kind in _NUMBERS and isinstance(stored, bool)):
        name = getattr(kind, "__name__", str(kind))
        raise ValueError(
            f"`{plain(where)}` is a {type(stored).__name__} where a {name} belongs; make the report again."
        )


def _check_lengths(report: ReportData) -> None:
    """What belongs to each token or label word must be as many.

    Raises:
        ValueError: it is not.
    """
    measured, prior = report.faithfulness, report.label_prior
    sides = [] if prior is None else [prior.without, prior.as_prompt, *([prior.as_text] if prior.as_text else [])]
    if any(len(side.bias) != len(prior.words) for side in sides if prior is not None):
        raise ValueError("`report.label_prior` has not one number for each label word; make the report again.")
    if measured is None:
        return
    if len(measured.token_effects) not in (0, len(report.reading.tokens)):
        raise ValueError("`report.faithfulness.token_effects` are not one for each token; make the report again.")
    shares, answered = measured.answers, measured.answered
    words = len(shares.label_words) if shares is not None else 0
    if answered is not None and not all(_is_known(own.answers, words) for own in _answers_of(answered)):
        raise ValueError("`report.faithfulness.answered` has answers that are no label word; make the report again.")
    if shares is None:
        return
    columns = (shares.label_token_ids, shares.rows, shares.as_prompt, shares.as_text, shares.without)
    if {len(column) for column in columns if column is not None} != {len(shares.label_words)}:
        raise ValueError("`report.faithfulness.answers` are not one for each label word; make the report again.")


def _answers_of(answered: AnsweredRows) -> tuple[AnswerPattern | AnsweredRow, ...]:
    return (*answered.patterns, *answered.examples)


def _is_known(answers: RowAnswers, words: int) -> bool:
    """Whether the label and every answer is one of so many label words, or a tie."""
    given = (answers.as_prompt, answers.as_text, TIED if answers.without is None else answers.without)
    return 0 <= answers.label < words and all(TIED <= answer < words for answer in given)


@dataclass(frozen=True)
class Rival:
    """Another prompt of the same task, for comparison.

    Attributes:
        name: what it is called in the picture.
        accuracy: share of rows, 0 to 1.
        nll: log-perplexity of its text, nats per token.
    """

    name: str
    accuracy: float
    nll: float


@dataclass(frozen=True, repr=False)
class ReportData:
    """One prompt: what it says, what it does, and whether either may be believed.

    Attributes:
        reading: the prompt as text.
        verdicts: the questions a reader has, answered.
        scrutability: whether a person can read the text; None where there is none.
        faithfulness: whether the text does what the prompt does; None where there was no data.
        waywardness: how far nearest tokens can mislead; None where it was not tested.
        rivals: other prompts of the same task.
        base_change: what the adapter changed of the base model besides its prompt; None where nothing.
        context: where it comes from: base_model, data, rows, label_words, template, versions, date, training, ...;
            what JSON can hold.
        task_naming: whether the text says what it is for; None where no task was described.
        label_bias: the numbers that the prompt needs beside its text, with which it was measured; None for none.
        label_prior: what of its gain is only the label prior; None where nothing was calibrated.
        explanation: a text that behaves like the prompt, or that there is none; None where none was looked for.
    """

    reading: PromptReading
    verdicts: tuple[Verdict, ...]
    scrutability: Scrutability | None = None
    faithfulness: Faithfulness | None = None
    waywardness: Waywardness | None = None
    rivals: tuple[Rival, ...] = ()
    context: dict[str, Any] = field(default_factory=dict)
    base_change: BaseChange | None = None
    task_naming: TaskNaming | None = None
    label_bias: LabelBias | None = None
    label_prior: LabelPrior | None = None
    explanation: ExplanationData | None = None

    def verdict(self, question: str) -> Verdict | None:
        """The answer to a question (see `verdicts.QUESTIONS`); None where it did not arise."""
        return next((verdict for verdict in self.verdicts if verdict.question == question), None)

    def __repr__(self) -> str:
        return short_repr(
            type(self).__name__,
            text=shortened(self.reading.text, _SHOWN_LETTERS),
            verdicts={shortened(v.question, 12): shortened(v.answer, 12) for v in self.verdicts},
            accuracy=self.faithfulness.as_prompt.accuracy if self.faithfulness else None,
            accuracy_as_text=self.faithfulness.as_text.accuracy if self.faithfulness else None,
            readability=self.scrutability.score if self.scrutability else None,
            base_model=shortened(str(self.context.get("base_model")), _SHOWN_LETTERS),
            data=shortened(str(self.context.get("data")), _SHOWN_LETTERS) if "data" in self.context else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as dictionaries, lists, strings and numbers that JSON can hold, with a `schema` number."""
        return {"schema": SCHEMA, **as_plain(self)}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """The report again.

        Raises:
            ValueError: not a report, one of a later schema, or something of a wrong type in it.
        """
        schema = stored.get("schema") if isinstance(stored, Mapping) else None
        if not isinstance(schema, int) or "reading" not in stored:
            raise ValueError("this is no prompt report: it has no `schema` and `reading`; see `PromptReport.to_dict`.")
        if schema > SCHEMA:
            raise ValueError(f"`schema={schema}` is later than {SCHEMA}, the last one known here; upgrade peft_interp.")
        report: Self = rebuild(cls, stored)
        _check_lengths(report)
        if report.reading.position not in PLACEMENTS:
            raise ValueError(f"`report.reading.position` is {plain(report.reading.position)!r}; make the report again.")
        strange = [verdict.answer for verdict in report.verdicts if verdict.answer not in ANSWERS]
        if strange:
            raise ValueError(f"a verdict's answer is {plain(strange[0])!r} and must be one of {', '.join(ANSWERS)}.")
        return report
