"""`peft-interp explain`: a text for a soft prompt, or that there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Build = Callable[..., Any]


def test_a_prompt_of_tokens_is_its_own_explanation(run: Build, adapters: Path, tmp_path: Path) -> None:
    ran = run(
        "explain", adapters / "ours", "--task", "sentiment", "--rows", "16", "--json", "found.json", "--html", "x.html"
    )
    assert ran.code == 0, ran.err
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["text"].strip() == "Is this film review positive or negative?"
    assert found["candidates"][0]["kl"] < 1e-6
    assert found["context"]["adapter"] == "ours"
    assert "Is this film review positive or negative?" in ran.out
    assert "<svg" in (tmp_path / "x.html").read_text()


def test_vectors_are_looked_at_within_the_budget(run: Build, adapters: Path, tmp_path: Path) -> None:
    ran = run(
        "explain", adapters / "stock", "--task", "sentiment", "--rows", "16", "--budget", "30", "--json", "found.json"
    )
    assert ran.code == 0, ran.err
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["text"] is None) == ("No text explains this prompt" in ran.out)
    assert found["context"]["budget"] == 30


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("explain {0}/soft", "name them with `--task` or `--data`"),
        ("explain {0}/soft --task sentiment --rows 6", "`rows` holds 6 rows; at least 8 are needed"),
        ("explain {0}/lora --task sentiment", "has no prompt to read"),
        ("explain {0}/soft --task sentiment --json none/x.json", "there is no folder 'none'"),
    ],
)
def test_mistakes_are_told_in_one_line(run: Build, adapters: Path, line: str, words: str) -> None:
    ran = run(*line.format(adapters).split())
    assert (ran.code, ran.out) == (1, "")
    assert words in ran.err
