"""Reward functions of the user, called as TRL calls them.

`f(prompts=..., completions=..., completion_ids=..., trainer_state=..., **columns) -> list[float | None]`, one number
for each completion. Here the completions are the *candidate prompts* (the texts that are searched for), since they are
what the policy wrote. `prompts[i]` and `columns[name][i]` are what completion i is used on: the list of all inputs,
and of all values of that column, of the step's examples. All lists have one length, so functions that look at
completions alone (length, style, a classifier) run unchanged. Prompts already in the archive are not asked for again.

A prompt for which every reward is None is never chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from peft_interp.scoring.candidates import Candidate
from peft_interp.scoring.examples import Examples

MEASURES = ("gap", "negative_loss", "loss", "accuracy", "nll", "repetition", "special_tokens", "scrutability")
# What an evaluation logs beside the measures, by this library and by Trainer
LOGGED = ("score", "reward", "prompt", "greedy_reward", "greedy_prompt", "hypervolume", "front_size")
LOGGED_BY_TRAINER = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
ARGUMENTS = ("prompts", "completions", "completion_ids", "trainer_state")
RewardFunction = Callable[..., Sequence[float | None]]


def function_names(functions: Sequence[RewardFunction]) -> list[str]:
    """A name for each, as TRL has it: the function's own; with a number where that is taken (`score_0`, say).

    Raises:
        ValueError: something that cannot be called.
    """
    names: list[str] = []
    for function in functions:
        if not callable(function):
            raise ValueError(
                f"reward function {function!r} cannot be called; pass functions `f(prompts, completions, **columns)` "
                "that return one number for each completion."
            )
        name = getattr(function, "__name__", type(function).__name__)
        taken, number = {*names, *MEASURES, *LOGGED, *LOGGED_BY_TRAINER}, len(names)
        while f"{name}_{number}" in taken:
            number += 1
        names.append(f"{name}_{number}" if name in taken else name)
    return names


def call_reward_function(
    function: RewardFunction, name: str, candidates: Sequence[Candidate], examples: Examples, state: Any
) -> list[float | None]:
    """One number, or None for "does not apply", for each candidate.

    Args:
        function: see the module's text.
        name: for errors.
        candidates: the prompts.
        examples: what they are used on; columns that have an argument's name are not passed.
        state: Trainer's state, passed as `trainer_state`.

    Raises:
        ValueError: the function returned NaN, an infinity, no numbers, or not one for each candidate.
        Exception: what the function raises, with a note that names the prompts.
    """
    texts = [candidate.text for candidate in candidates]
    count = len(texts)
    try:
        returned = function(
            prompts=[examples.inputs] * count,
            completions=texts,
            completion_ids=[list(candidate.ids) for candidate in candidates],
            trainer_state=state,
            **{name: [values] * count for name, values in examples.columns.items() if name not in ARGUMENTS},
        )
    except Exception as error:
        error.add_note(f"raised by reward function {name!r} for the prompts {texts}; all earlier scores are saved.")
        raise
    try:
        values = [None if value is None else float(value) for value in returned]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"reward function {name!r} returned {returned!r}, which is no list of numbers (asynchronous functions are "
            "not supported); return one number, or None, for each completion."
        ) from error
    if len(values) != count:
        raise ValueError(
            f"reward function {name!r} returned {len(values)} numbers for {count} completions; return one each."
        )
    for text, value in zip(texts, values, strict=True):
        if value is not None and not math.isfinite(value):
            raise ValueError(
                f"reward function {name!r} returned {value} for the prompt {text!r}; return a finite number, or None "
                "where the reward does not apply."
            )
    return values
