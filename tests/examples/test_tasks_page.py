"""The code of `docs/tasks.md` runs as it stands, each piece within 15 lines; the chat's is run in `tests/real`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import processes

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_its_code_runs(tmp_path: Path) -> None:
    here = [block for block in BLOCKS if "smollm2" not in block]
    assert len(here) == len(BLOCKS) - 1
    finished = processes.run("-c", "\n".join(here), cwd=tmp_path, timeout=300)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "template [{'label': " in finished.stdout
    assert re.search(r"'label': '(warm|cold|a kind of soup)', 'score': 0\.\d+", finished.stdout)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_each_piece_is_short(block: str) -> None:
    lines = [line for line in block.splitlines() if line.strip()]
    assert len(lines) <= 15
    assert max(map(len, block.splitlines())) <= 120
