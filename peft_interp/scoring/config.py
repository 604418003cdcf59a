"""`RewardArguments`: what every trainer that scores prompts lets a user set, as `TrainingArguments`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from transformers import TrainingArguments

from peft_interp.scoring.rewards import REWARDS, RIGHT_WEIGHT, WRONG_WEIGHT

TASK_REWARDS = ("auto", *(reward.name for reward in REWARDS if reward.of_task), "none")


@dataclass
class RewardArguments(TrainingArguments):
    """`TrainingArguments` of a search by rewards.

    Raises:
        ValueError: for values outside what the fields' help texts allow.
    """

    prompts_per_step: int = field(
        default=16, metadata={"help": "Prompts sampled per process and accumulated batch (published: 16)."}
    )
    task_reward: str = field(
        default="auto",
        metadata={
            "help": "'gap' (published, needs label words), 'negative_loss' (any labelled data), 'none' (reward "
            "functions alone), or 'auto': gap with label words, else none with reward functions, else negative_loss."
        },
    )
    right_weight: float = field(
        default=RIGHT_WEIGHT, metadata={"help": "Weight of the gap of a right prediction, > 0 (published: 200)."}
    )
    wrong_weight: float = field(
        default=WRONG_WEIGHT, metadata={"help": "Weight of the gap of a wrong one, > 0 (published: 180)."}
    )
    reward_weights: list[float] | None = field(
        default=None,
        metadata={
            "help": "Weights of the reward functions beside the task's 1; None: 1 each. `RLPromptTrainer` weighs their "
            "z-scores, `PromptSearchTrainer` the rewards as they are, so mind their scale there."
        },
    )

    reward_time_limit: float | None = field(
        default=1800.0,
        metadata={
            "help": "Seconds that one call of a reward function may take, > 0, so that a hanging one ends the run with "
            "its name. None: no limit."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reward_time_limit is not None and not self.reward_time_limit > 0:
            raise ValueError(f"`reward_time_limit={self.reward_time_limit}` must be > 0 seconds, or None.")
        if self.task_reward not in TASK_REWARDS:
            raise ValueError(f"`task_reward={self.task_reward!r}` is unknown; use one of {', '.join(TASK_REWARDS)}.")
        if self.prompts_per_step < 1:
            raise ValueError(f"`prompts_per_step={self.prompts_per_step}` must be at least 1.")
        for name in ("right_weight", "wrong_weight"):
            if not getattr(self, name) > 0 or not math.isfinite(getattr(self, name)):
                raise ValueError(f"`{name}={getattr(self, name)}` must be a finite number > 0.")
        for name in ("fsdp", "deepspeed"):
            if getattr(self, name, None):
                raise ValueError(
                    f"`{name}` cannot be used: the trained head is small, so DDP (`accelerate launch`) is enough."
                )
        if self.label_smoothing_factor:
            raise ValueError(
                f"`label_smoothing_factor={self.label_smoothing_factor}` has no meaning for a reward; use 0."
            )
