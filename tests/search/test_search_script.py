"""The example script runs as a user runs it, on the embedded model, with a few steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Build = Callable[..., Any]


def test_it_searches_resumes_and_reports_the_front(run_script: Build, tmp_path: Path) -> None:
    small = ["--output_dir", "out", "--prompts_per_step", "4", "--human_starts", "4", "--max_train_samples", "16"]
    small += ["--max_eval_samples", "20", "--eval_steps", "1", "--save_steps", "1", "--disable_tqdm", "True"]
    small += ["--improve", "Is this film review good?", "--required_phrases", "film review"]
    run_script(tmp_path, "run_search.py", *small, "--max_steps", "1")
    printed = run_script(tmp_path, "run_search.py", *small, "--max_steps", "2", "--resume_from_checkpoint", "True")
    text = (tmp_path / "out" / "prompt.txt").read_text()
    assert f"prompt:     {text!r}" in printed
    assert "on 20 test rows" in printed
    assert repr(text) in printed.split("the front")[1]
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["peft_type"] == "PROMPT_TUNING"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<svg" in page
    assert "embedded:sentiment (test)" in page
    assert "film review" in text.lower()
    assert "improved from" in page
    assert "Is this film review good?" in page
    assert "embedded:sentiment (test)" in (tmp_path / "out" / "README.md").read_text()
