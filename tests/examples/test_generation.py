"""The example of rewards on answers, as a user runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Build = Callable[..., str]
SMALL = ["--steps", "1", "--prompts_per_step", "4", "--rows", "4", "--test_rows", "6"]


@pytest.mark.parametrize(
    ("task", "reward"), [("label", "exact_match"), ("json", "valid_json"), ("first_sentence", "rougeL")]
)
def test_it_searches_and_puts_the_prompt_beside_those_of_a_person(
    task: str, reward: str, run_script: Build, tmp_path: Path
) -> None:
    printed = run_script(tmp_path, "run_generation.py", "--task", task, "--output_dir", "out", *SMALL)
    assert f"{task}, 6 test rows of embedded" in printed
    assert f"| with | {reward} |" in printed
    assert "write the same on 100% of 6 rows" in printed
    rows = [line for line in printed.splitlines() if " ± " in line or line.endswith("| 0.000 |")]
    assert len(rows) == 3 + 5, "prompt, text, no prompt, and five of a person"
    assert (tmp_path / "out" / "prompt.txt").exists()
