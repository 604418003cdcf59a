"""The Python of the pages about real models and metrics runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["real-models.md", "metrics.md"])
def test_python_blocks_run(page: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    environment = {name: value for name, value in os.environ.items() if name != "PEFT_INTERP_JUDGE"}
    finished = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    if page == "metrics.md":
        assert "names its task" in finished.stdout
        assert "about something else" in finished.stdout
        assert "unreadable" in finished.stdout


def test_the_chat_of_the_page_about_tasks_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "tasks.md").read_text(encoding="utf-8"), re.DOTALL)
    code = "\n".join([blocks[0], *(block for block in blocks if "smollm2" in block)])
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "<|im_start|>system" in finished.stdout
    assert "'score': " in finished.stdout
