"""A target instead of a weight: the weight follows the prompt's perplexity, and nothing of it is lost."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from safetensors.torch import load_file, save_file

from peft_interp import text_nll
from peft_interp.tuner.perplexity import CONTROL_RATE, LEAST_WEIGHT, MOST_WEIGHT, controlled_weight

Build = Callable[..., Any]


def test_the_weight_rises_above_the_target_and_falls_below() -> None:
    target = math.exp(3.0)
    assert controlled_weight(0.5, 3.0, target) == pytest.approx(0.5)
    assert controlled_weight(0.5, 3.5, target) == pytest.approx(0.5 * math.exp(CONTROL_RATE * 0.5))
    assert controlled_weight(0.5, 9.0, target) == pytest.approx(0.5 * math.exp(CONTROL_RATE))
    assert controlled_weight(0.5, 0.0, target) == pytest.approx(0.5 * math.exp(-CONTROL_RATE))
    assert controlled_weight(LEAST_WEIGHT, 0.0, target) == LEAST_WEIGHT
    assert controlled_weight(MOST_WEIGHT, 9.0, target) == MOST_WEIGHT
    assert controlled_weight(0.99, 9.0, target, most=1.0) == 1.0


@pytest.fixture
def run(toy_lm: Build, readable: Build, learner: Build, rows_for: Build) -> Build:
    """`run(steps, resume=None, arguments={}, **config)`: Trainer after training on the toy language model."""

    def train(
        steps: int = 60, resume: str | None = None, arguments: dict[str, Any] | None = None, **config: Any
    ) -> Any:
        model = readable(toy_lm(), num_virtual_tokens=6, **config)
        trainer = learner(model, rows_for("CAUSAL_LM"), {}, max_steps=steps, learning_rate=0.05, **(arguments or {}))
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return train


def weight(trainer: Any) -> float:
    trainer.model.prompt_token_ids()  # sees the last step's latent
    return trainer.model.prompt_encoder["default"].weight.item()


def test_a_low_target_makes_the_prompt_likelier_and_the_weight_rise(run: Build) -> None:
    free, wanted = run(), run(target_perplexity=1.5)
    nlls = [text_nll(t.model.get_base_model(), t.model.prompt_token_ids()) for t in (free, wanted)]
    assert nlls[1] < 0.7 * nlls[0]
    assert wanted.model.prompt_statistics()["perplexity_weight"] > 0.03
    assert free.model.prompt_statistics()["perplexity_weight"] == 0


def test_a_target_that_is_reached_lets_the_weight_fall(run: Build) -> None:
    assert weight(run(target_perplexity=1e9)) == pytest.approx(0.03 * math.exp(-CONTROL_RATE) ** 60, rel=1e-6)


def test_the_weight_moves_once_for_accumulated_batches(run: Build) -> None:
    accumulated = run(5, target_perplexity=1e9, arguments={"gradient_accumulation_steps": 3})
    assert weight(accumulated) == pytest.approx(0.03 * math.exp(-CONTROL_RATE) ** 5, rel=1e-6)


def test_a_resumed_run_has_the_weight_it_would_have_had(run: Build, tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 4, "output_dir": str(tmp_path / "run")}
    straight = run(8, target_perplexity=5.0, arguments=saving)
    resumed = run(
        8, str(tmp_path / "run" / "checkpoint-4"), {"output_dir": str(tmp_path / "on")}, target_perplexity=5.0
    )
    assert weight(straight) == weight(resumed) != 0.03
    assert straight.model.prompt_token_ids() == resumed.model.prompt_token_ids()


def test_an_adapter_saved_before_there_were_targets_loads(run: Build, toy_lm: Build, tmp_path: Path) -> None:
    trainer = run(2, perplexity_weight=0.2)
    trainer.model.save_pretrained(str(tmp_path / "old"))
    file = tmp_path / "old" / "adapter_model.safetensors"
    tensors = load_file(file)
    assert tensors.pop("prompt_perplexity_weight").item() == 0.2
    save_file(tensors, file)
    loaded = PeftModel.from_pretrained(toy_lm(), str(tmp_path / "old"))
    assert loaded.prompt_token_ids() == trainer.model.prompt_token_ids()
    assert loaded.prompt_encoder["default"].weight.item() == 0.2
