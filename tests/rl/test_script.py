"""The example script runs as a user runs it, on the embedded model, with a few steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Build = Callable[..., Any]


def test_it_searches_saves_resumes_and_shows_the_trade_off(run_script: Build, tmp_path: Path) -> None:
    small = ["--output_dir", "out", "--prompts_per_step", "4", "--examples_per_step", "8", "--max_eval_samples", "20"]
    often = ["--eval_steps", "1", "--save_steps", "1", "--logging_steps", "1", "--perplexity_reward_weight", "0.3"]
    script = "run_rlprompt.py"
    run_script(tmp_path, script, *small, *often, "--max_steps", "1")
    printed = run_script(
        tmp_path, "run_rlprompt.py", *small, *often, "--max_steps", "2", "--resume_from_checkpoint", "True"
    )
    text = (tmp_path / "out" / "prompt.txt").read_text().rstrip("\n")
    assert f"prompt:     {text!r}" in printed
    assert "on 20 test rows" in printed
    assert "%  " in printed.split("against readability")[1]
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["peft_type"] == "PROMPT_TUNING"
    state = json.loads((tmp_path / "out" / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["global_step"] == 2
