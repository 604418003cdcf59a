"""The benchmark of answers as a user runs it, at tiny sizes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from tests import processes

ROOT = Path(__file__).parents[2]


def test_it_measures_the_same_answers_and_writes_its_table(tmp_path: Path) -> None:
    shutil.copy(ROOT / "benchmarks" / "answers" / "README.md", tmp_path)
    command = ["-m", "benchmarks.answers", "--quick", "--output", str(tmp_path / "results.json")]
    done = processes.run(*command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "results.json").read_text())
    names = ("start", "end", "end_long")
    assert [found[name]["differ_from_single_calls"] for name in names] == [0] * 3
    assert found["start"]["answers"] == 8
    assert found["end_long"]["tokens"]["by_prompt"] > 1.5 * found["end_long"]["tokens"]["ours"], "texts are run once"
    readme = (tmp_path / "README.md").read_text()
    assert "| prompt, review | a call for each answer |" in readme
    assert "| six reviews, prompt | a batch of the rows for each prompt |" in readme
