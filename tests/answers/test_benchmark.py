"""The benchmark of answers as a user runs it, at tiny sizes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_it_measures_the_same_answers_and_writes_its_table(tmp_path: Path) -> None:
    shutil.copy(ROOT / "benchmarks" / "answers" / "README.md", tmp_path)
    command = [sys.executable, "-m", "benchmarks.answers", "--quick", "--output", str(tmp_path / "results.json")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "results.json").read_text())
    assert [found[position]["differ_from_single_calls"] for position in ("start", "end")] == [0, 0]
    assert found["start"]["answers"] == 8
    assert "| start | a call for each answer |" in (tmp_path / "README.md").read_text()
