"""TRL's reinforcement-learning trainers take our config as they take any other."""

from __future__ import annotations

from pathlib import Path

import pytest
from peft import PeftConfig

from examples import run_grpo
from peft_interp import InterpPromptConfig, embedded


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")  # TRL sets it
@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_a_trl_trainer_trains_our_prompt_and_saves_it(method: str, tmp_path: Path) -> None:
    arguments = ["--method", method, "--steps", "2", "--batch_size", "8", "--output_dir", str(tmp_path)]
    trainer = run_grpo.main(arguments)
    encoder = trainer.model.prompt_encoder["default"]
    assert int(encoder.step) == 2
    assert not encoder.latent.detach().equal(encoder.tokens.rows(encoder.ids).float()), "no gradient reached the latent"
    assert isinstance(PeftConfig.from_pretrained(tmp_path), InterpPromptConfig)
    logged = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert logged
    assert all(entry["prompt_text"] for entry in logged)


def test_the_reward_reads_the_first_word_only() -> None:
    assert run_grpo.right_word([" great", " great fun", " greatly", ""], [1, 1, 1, 0]) == [1.0, 1.0, 0.0, 0.0]
    assert embedded.TASKS["sentiment"].label_words[1] == "great"
