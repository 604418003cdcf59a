"""The code of `docs/reading-a-report.md` runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "reading-a-report.md"


def test_its_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    exec(compile("\n".join(blocks), str(PAGE), "exec"), {})
    printed = capsys.readouterr().out
    assert "The text is the prompt, a person can read it, and it helps the task." in printed
    assert "this prompt needs 2 numbers besides its text" in printed
    assert (tmp_path / "outputs" / "comparison" / "comparison.html").is_file()
