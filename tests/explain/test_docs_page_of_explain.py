"""The code of `docs/explain.md` runs as it stands, and its table is the package's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from peft_interp.explain.sources import source_table

PAGE = Path(__file__).parents[2] / "docs" / "explain.md"


def test_its_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    exec(compile("\n".join(blocks), str(PAGE), "exec"), {})
    shown = capsys.readouterr().out
    assert "What do people think of this movie? nearest 1.0" in shown
    assert "layer" in shown
    assert (tmp_path / "outputs" / "explanation" / "explanation.html").is_file()


def test_its_sources_are_those_there_are() -> None:
    assert source_table() in PAGE.read_text(encoding="utf-8")
