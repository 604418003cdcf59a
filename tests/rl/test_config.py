"""`RLPromptConfig` is a TrainingArguments with the published values, and says what is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from transformers import HfArgumentParser, TrainingArguments

from peft_interp.rl.config import RLPromptConfig


def test_the_published_values_are_the_defaults(tmp_path: Path) -> None:
    args = RLPromptConfig(str(tmp_path))
    assert isinstance(args, TrainingArguments)
    assert (args.learning_rate, args.max_grad_norm, args.max_steps) == (5e-5, 5.0, 12_000)
    assert (args.prompts_per_step, args.top_k, args.loss, args.target_update_rate) == (16, 256, "both", 0.001)
    assert (args.right_weight, args.wrong_weight, args.reward_scale) == (200, 180, 5)
    assert args.weight_decay == 0, "AdamW is then Adam"
    assert args.greater_is_better


def test_it_can_be_set_on_the_command_line_and_every_setting_has_help(tmp_path: Path) -> None:
    parser = HfArgumentParser(RLPromptConfig)
    (args,) = parser.parse_args_into_dataclasses(
        [
            "--output_dir",
            str(tmp_path),
            "--top_k",
            "8",
            "--perplexity_reward_weight",
            "0.3",
            "--reward_weights",
            "1",
            "2",
        ]
    )
    assert (args.top_k, args.perplexity_reward_weight, args.reward_weights) == (8, 0.3, [1.0, 2.0])
    own = {f.name for f in dataclasses.fields(RLPromptConfig)} - {f.name for f in dataclasses.fields(TrainingArguments)}
    assert all(f.metadata.get("help") for f in dataclasses.fields(RLPromptConfig) if f.name in own)
    assert len(own) > 15


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "v3"}, r"`loss='v3'` is unknown; use one of one_step, multi_step, both"),
        ({"task_reward": "accuracy"}, r"`task_reward='accuracy'` is unknown"),
        ({"prompts_per_step": 0}, r"`prompts_per_step=0` must be at least 1"),
        ({"examples_per_step": 0}, r"`examples_per_step=0` must be at least 1"),
        ({"top_k": -1}, r"`top_k=-1` must be >= 0"),
        ({"top_p": 0.0}, r"`top_p=0.0` must be in \(0, 1\]"),
        ({"target_update_rate": 1.5}, r"`target_update_rate=1.5` must be in"),
        ({"temperature": 0.0}, r"`temperature=0.0` must be a finite number > 0"),
        (
            {"perplexity_reward_weight": -0.1},
            r"`perplexity_reward_weight=-0.1` must be in \[0, 1\]; 0 is plain RLPrompt",
        ),
        ({"perplexity_reward_weight": float("nan")}, r"`perplexity_reward_weight=nan` must be in"),
        ({"perplexity_reward_weight": 0.6, "repetition_penalty_weight": 0.6}, "must add up to at most 1"),
        ({"label_smoothing_factor": 0.1}, "`label_smoothing_factor=0.1` has no meaning"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        RLPromptConfig(str(tmp_path), **settings)
