"""`RLPromptConfig`: everything a user can set about a search by soft Q-learning, as `TrainingArguments`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from peft_interp.records import weight_settings
from peft_interp.rl.soft_q import LOSSES
from peft_interp.scoring.config import RewardArguments
from peft_interp.scoring.rewards import REWARDS

BASELINES = ("none", "uniform")
READABILITY_WEIGHTS = tuple(reward.setting for reward in REWARDS if reward.setting)


@dataclass
class RLPromptConfig(weight_settings("ReadabilityWeights", REWARDS), RewardArguments):  # type: ignore[misc]
    """`TrainingArguments` for `RLPromptTrainer`.

    Published values are RLPrompt's (arXiv 2205.12548). The length of the prompt is the adapter's `num_virtual_tokens`
    (published: 5). A step scores `prompts_per_step` prompts per process and accumulated batch. The weights of the
    readability rewards (`perplexity_reward_weight`, ...) are made from the records in `scoring/rewards.py`.

    Raises:
        ValueError: for values outside what the fields' help texts allow.
    """

    learning_rate: float = field(
        default=5e-5,
        metadata={
            "help": "Adam's learning rate of the head (published: 5e-5, for 12,000 steps; with hundreds of steps about "
            "1e-3 is needed)."
        },
    )
    max_grad_norm: float = field(default=5.0, metadata={"help": "Gradient norm is clipped here (published: 5)."})
    max_steps: int = field(default=12_000, metadata={"help": "Optimizer steps (published: 12,000); -1: use epochs."})
    lr_scheduler_type: str = field(default="constant", metadata={"help": "Learning-rate schedule."})
    logging_steps: float = field(default=10, metadata={"help": "Log every so many steps, or this share of all."})
    metric_for_best_model: str | None = field(
        default="score", metadata={"help": "What early stopping and the best checkpoint go by; see `RLPromptTrainer`."}
    )

    examples_per_step: int | None = field(
        default=None,
        metadata={
            "help": "Examples that the prompts of a step are scored on, another part each step. None: all. Without "
            "`eval_dataset`, the most promising prompts are scored on all of them before a save and at the end."
        },
    )
    top_k: int | None = field(
        default=256, metadata={"help": "Sample among this many tokens of highest Q (published: 256); 0 or None: all."}
    )
    top_p: float = field(default=1.0, metadata={"help": "Sample in the smallest set of this probability, in (0, 1]."})
    temperature: float = field(default=1.0, metadata={"help": "Temperature of sampling, > 0 (published: 1)."})
    fluency_top_n: int | None = field(
        default=None,
        metadata={"help": "Only the raw language model's n likeliest tokens may be chosen (published: 20). None: off."},
    )
    loss: str = field(
        default="both",
        metadata={
            "help": "Soft Q-learning loss: 'one_step', 'multi_step', or 'both', their mean (published); 'bellman'; or "
            "'path', which needs no target network (see `soft_q`)."
        },
    )
    value_baseline: str = field(
        default="none",
        metadata={
            "help": "'none' (published), or 'uniform': values are measured against the uniform policy, which has the "
            "same optimum and starts without the published losses' large first errors (see `soft_q`)."
        },
    )
    target_update_rate: float = field(
        default=0.001,
        metadata={"help": "Rate of Polyak averaging of the target network, in (0, 1] (published: 0.001)."},
    )
    policy_hidden_size: int = field(default=2048, metadata={"help": "Width of the trained head (published: 2048)."})
    policy_model_name_or_path: str | None = field(
        default=None, metadata={"help": "The policy's language model (published: distilgpt2). None: the task model."}
    )

    reward_scale: float = field(
        default=5.0, metadata={"help": "Mixed z-scores are multiplied by this (published: [0, 1] -> [0, 5])."}
    )

    eval_candidates: int = field(
        default=4,
        metadata={
            "help": "Prompts of best training score that an evaluation tries beside the greedy one (published: 0)."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choices(self)
        _check_numbers(self)
        _check_weights(self)

    @property
    def readability_weights(self) -> dict[str, float]:
        """Weights of the readability rewards in use, by reward; negative where lower is better."""
        weighed = {reward.name: reward.sign * getattr(self, reward.setting) for reward in REWARDS if reward.setting}
        return {name: weight for name, weight in weighed.items() if weight}


def _check_choices(config: RLPromptConfig) -> None:
    for name, allowed in {"loss": LOSSES, "value_baseline": BASELINES}.items():
        if getattr(config, name) not in allowed:
            raise ValueError(f"`{name}={getattr(config, name)!r}` is unknown; use one of {', '.join(allowed)}.")


def _check_numbers(config: RLPromptConfig) -> None:
    for name in ("policy_hidden_size", "fluency_top_n", "examples_per_step"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"`{name}={value}` must be at least 1.")
    for name in ("top_k", "eval_candidates"):
        if (getattr(config, name) or 0) < 0:
            raise ValueError(f"`{name}={getattr(config, name)}` must be >= 0.")
    for name in ("temperature", "reward_scale"):
        if not getattr(config, name) > 0 or not math.isfinite(getattr(config, name)):
            raise ValueError(f"`{name}={getattr(config, name)}` must be a finite number > 0.")
    for name in ("top_p", "target_update_rate"):
        if not 0 < getattr(config, name) <= 1:
            raise ValueError(f"`{name}={getattr(config, name)}` must be in (0, 1].")


def _check_weights(config: RLPromptConfig) -> None:
    for name in READABILITY_WEIGHTS:
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"`{name}={getattr(config, name)}` must be in [0, 1]; 0 is plain RLPrompt.")
    if sum(map(abs, config.readability_weights.values())) > 1 + 1e-9:
        named = ", ".join(f"{name}={getattr(config, name)}" for name in READABILITY_WEIGHTS)
        raise ValueError(f"the readability weights ({named}) must add up to at most 1: the rest is the task's weight.")
