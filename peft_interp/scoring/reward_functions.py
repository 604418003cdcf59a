"""Rewards for a prompt's text, for `reward_funcs`: does it name its task, does it read like English that people write.

Both follow TRL's convention: called with the prompts that are being tried as `completions`, they return a number for
each, higher is better, or None where it does not apply.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from peft_interp.embedded.encoder import TextEncoder
from peft_interp.metrics.readability_judge import AUTO, ReadabilityJudge, find_judge
from peft_interp.metrics.task_naming import measure_task_namings

if TYPE_CHECKING:
    import torch

RewardFunction = Callable[..., list[float | None]]


def task_naming_reward(
    task_description: str | None = None,
    label_words: Sequence[str] = (),
    examples: Sequence[str] = (),
    encoder: TextEncoder | None = None,
    most: float = 4.0,
) -> RewardFunction:
    """A reward for naming the task; arguments as for `measure_task_naming`.

    Args:
        task_description: what the task is, in a sentence.
        label_words: words that the task answers with. A search rewarded by them will copy them unless they are banned.
        examples: inputs of the task.
        encoder: None for all-MiniLM-L6-v2.
        most: the score, in standard deviations above prompts for other tasks, from which on more brings nothing: a
            prompt need not parrot the description.

    Returns:
        A function of `completions` that returns scores, at most `most`; None for a text without words.

    Raises:
        ValueError: there is nothing to compare with.
        ModuleNotFoundError: the default encoder is not installed.
    """
    arguments = (task_description, label_words, examples, encoder)
    measure_task_namings([], *arguments)  # what is wrong with them is said now, not in the middle of a run

    def task_naming(completions: Sequence[str], **_: Any) -> list[float | None]:
        found = measure_task_namings(completions, *arguments)
        return [None if math.isnan(one.score) else min(one.score, most) for one in found]

    return task_naming


def readability_reward(judge: ReadabilityJudge | str = AUTO, device: torch.device | str = "cpu") -> RewardFunction:
    """A reward for reading like English that people write: the judge's score, 0 to 1.

    It costs a pass of the judge over every prompt; `readability_reward_weight` of the searches is the cheap score under
    the task model itself, which a search can game.

    Args:
        judge: as for `measure_scrutability`; the task model cannot be one here.
        device: where the judge runs.

    Returns:
        A function of `completions` that returns scores; None for a text of fewer than two tokens.

    Raises:
        ValueError: an unknown judge, or the task model.
        ModuleNotFoundError: SmolLM2 is wanted and not installed.
    """
    found = find_judge(judge, device)
    if found is None:
        raise ValueError(
            f"`judge={judge!r}` means the task model, which this reward does not have; use 'smollm2' or 'embedded'."
        )

    def readability_by_judge(completions: Sequence[str], **_: Any) -> list[float | None]:
        return [None if math.isnan(score) else score for score in found.scores(completions)]

    return readability_by_judge
