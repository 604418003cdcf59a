"""Rewards on what the task model writes, for `reward_funcs`: `on_answers(exact_match_reward("answer"))`, say.

The functions follow TRL's convention (`GRPOTrainer`), so they serve there as well: called with `completions`, the
answers, and the data's columns, they return a number, higher is better, or None for each answer. `on_answers` is what
makes a search ask the model: without it a reward function gets the prompts that are being tried as `completions`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from peft_interp.answers.measures import exact_match, json_keys, json_progress, rouge_l, rouge_n
from peft_interp.answers.settings import AnswerSettings

Values = list[float | None]
AnswerFunction = Callable[..., Any]
ROUGE: dict[str, Callable[[str, str], float]] = {
    "rougeL": rouge_l,
    "rouge1": lambda answer, reference: rouge_n(answer, reference, 1),
    "rouge2": lambda answer, reference: rouge_n(answer, reference, 2),
}


@dataclass(frozen=True)
class AnswerReward:
    """A reward function that is called with the task model's answers; made by `on_answers`.

    Attributes:
        function: called as TRL calls it.
        settings: how answers are written.
    """

    function: AnswerFunction
    settings: AnswerSettings

    @property
    def __name__(self) -> str:
        """The function's own, which logs and archives use."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    @property
    def reference_column(self) -> str | None:
        """The column that a ready function compares answers with; None for others."""
        return getattr(self.function, "reference_column", None)

    def __call__(self, **arguments: Any) -> Any:
        """What the function returns."""
        return self.function(**arguments)


def on_answers(
    function: AnswerFunction,
    max_new_tokens: int = 16,
    stop_strings: Sequence[str] = (),
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
) -> AnswerReward:
    """A reward function that asks for what the task model writes after each prompt on each row.

    The function is called once for all answers, with lists of one entry for each: `completions`, the answers;
    `completion_ids`, their tokens; `prompts`, the rows' texts; `searched_prompts`, the prompt that was in its place;
    every column of the data; and `trainer_state`. A prompt's reward is the mean over its rows; rows for which the
    function returns None are left out.

    Args:
        function: `f(completions, **columns)`; may be asynchronous.
        max_new_tokens, stop_strings, do_sample, temperature, top_k, top_p, seed: as for `AnswerSettings`. Functions
            with the same settings share their answers.

    Raises:
        ValueError: a setting outside its range, or something that cannot be called.
    """
    if not callable(function):
        raise ValueError(f"{function!r} cannot be called; pass a function `f(completions, **columns)`.")
    settings = AnswerSettings(max_new_tokens, stop_strings, do_sample, temperature, top_k, top_p, seed)
    return AnswerReward(function, settings)


def exact_match_reward(column: str = "answer") -> AnswerFunction:
    """1 where an answer is the text in a column, upper case, blanks and punctuation around it left aside; else 0.

    Args:
        column: of the data, with the text that is wanted; None in it means that the reward does not apply to the row.
    """

    def exact_match_with(completions: Sequence[str], **columns: Any) -> Values:
        return _with_references(exact_match, completions, columns, column)

    return _named(exact_match_with, "exact_match", column)


def rouge_reward(column: str = "answer", kind: str = "rougeL") -> AnswerFunction:
    """ROUGE of an answer against the text in a column, 0 to 1 (`peft_interp.answers.measures`).

    Args:
        column: of the data; None in it means that the reward does not apply to the row.
        kind: "rougeL", "rouge1" or "rouge2".

    Raises:
        ValueError: another kind.
    """
    if kind not in ROUGE:
        raise ValueError(f"`kind={kind!r}` is unknown; use one of {', '.join(ROUGE)}.")

    def rouge_with(completions: Sequence[str], **columns: Any) -> Values:
        return _with_references(ROUGE[kind], completions, columns, column)

    return _named(rouge_with, kind, column)


def json_reward(keys: Sequence[str], partial: bool = False) -> AnswerFunction:
    """1 where an answer is a JSON object with exactly these keys and nothing around it; else 0.

    Args:
        keys: that the object must have.
        partial: count what is on the way there too (`json_progress`), which gives a search something to climb.

    Raises:
        ValueError: no keys, or a text in place of a list.
    """
    if isinstance(keys, str) or not keys:
        raise ValueError(f"`keys={keys!r}` must be a list of the object's keys, one at least.")
    score = json_progress if partial else json_keys

    def valid_json(completions: Sequence[str], **columns: Any) -> Values:
        return [score(text, keys) for text in completions]

    return _named(valid_json, "json_progress" if partial else "valid_json", None)


def _named(function: Any, name: str, reference_column: str | None) -> AnswerFunction:
    function.__name__, function.reference_column = name, reference_column
    named: AnswerFunction = function
    return named


def _with_references(
    score: Callable[[str, str], float], completions: Sequence[str], columns: dict[str, Any], column: str
) -> Values:
    if column not in columns:
        raise ValueError(f"the data has no column {column!r} to compare answers with, only {sorted(columns)}; name it.")
    pairs = zip(completions, columns[column], strict=True)
    return [None if wanted is None else score(text, str(wanted)) for text, wanted in pairs]
