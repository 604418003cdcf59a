"""The example script runs as a user runs it, on the embedded model, with a few steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "run_search.py"


def run_script(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(SCRIPT), *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_it_searches_resumes_and_reports_the_front(tmp_path: Path) -> None:
    small = ["--output_dir", "out", "--prompts_per_step", "4", "--human_starts", "4", "--max_train_samples", "16"]
    small += ["--max_eval_samples", "20", "--eval_steps", "1", "--save_steps", "1", "--disable_tqdm", "True"]
    run_script(tmp_path, *small, "--max_steps", "1")
    printed = run_script(tmp_path, *small, "--max_steps", "2", "--resume_from_checkpoint", "True")
    text = (tmp_path / "out" / "prompt.txt").read_text()
    assert f"prompt:     {text!r}" in printed
    assert "on 20 test rows" in printed
    assert repr(text) in printed.split("the front")[1]
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["peft_type"] == "INTERP_PROMPT"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<svg" in page
