"""`peft-interp read --text` and `compare`: prompts written by hand, and several prompts on the same rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Build = Callable[..., Any]
QUESTION = "Is this film review positive or negative?"
ON_THE_EMBEDDED = ("--base-model", "embedded", "--task", "sentiment", "--rows", "20")


def test_a_text_is_judged_without_an_adapter(run: Build, tmp_path: Path) -> None:
    ran = run("read", "--text", QUESTION, *ON_THE_EMBEDDED, "--json", "report.json", "--html", "page.html")
    assert ran.code == 0, ran.err
    assert QUESTION in ran.out
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["reading"]["text"], report["reading"]["method"]) == (QUESTION, "TEXT")
    assert report["context"]["data"] == "sentiment, embedded in peft_interp (test)"
    assert QUESTION in (tmp_path / "page.html").read_text()


def test_whether_a_text_names_its_task(run: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bags of words stand in for the sentence encoder, which is a wheel that tests need not have; all else is real."""
    import peft_interp.metrics.task_naming as naming

    def encode(texts: list[str]) -> list[list[float]]:
        kinds = ("film", "review", "positive", "negative")
        return [[0.1] + [float(kind in text.lower()) for kind in kinds] for text in texts]

    monkeypatch.setattr(naming, "_default_encoder", lambda: naming._Encoder(encode))
    asked = ("--task-description", "Say whether a film review is positive or negative.", "--judge", "embedded")
    found = []
    for text in (QUESTION, "I like you as a babysitter."):
        ran = run("read", "--text", text, "--base-model", "embedded", *asked, "--json", "report.json")
        assert ran.code == 0, ran.err
        shown = json.loads((tmp_path / "report.json").read_text())
        found.append(next(verdict["answer"] for verdict in shown["verdicts"] if verdict["question"] == "named"))
    assert found == ["yes", "no"]
    assert "readable, but it is about something else" in " ".join(ran.out.split())


def test_adapters_and_texts_are_compared_on_the_same_rows(run: Build, adapters: Path, tmp_path: Path) -> None:
    other = "cooking pasta at home"
    ran = run("compare", adapters / "ours", other, "--task", "sentiment", "--rows", "40", "--json", "found.json")
    assert ran.code == 0, ran.err
    found = json.loads((tmp_path / "found.json").read_text())
    names = [prompt["name"] for prompt in found["prompts"]]
    assert sorted(names) == sorted(["ours", other, "no prompt"])
    assert names[0] == "ours"  # best first
    assert found["rows"] == 40
    assert other in ran.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["read", "--text", "Hi"], "name it with `--base-model`"),
        (["read", "FOLDER", "--text", "Hi", "--base-model", "embedded"], "leave an ADAPTER out"),
        (["read", "--text", "Hi", "--attach", "--base-model", "embedded"], "leave --attach out"),
        (["compare", "a", "b", "--base-model", "embedded"], "name them with `--task` or `--data`"),
        (["compare", "a", "b", "--task", "sentiment"], "name it with `--base-model`"),
        (["compare", "a", "a", *ON_THE_EMBEDDED], "two prompts have one name"),
    ],
)
def test_what_is_missing_is_said_in_one_line(run: Build, adapters: Path, arguments: list[str], words: str) -> None:
    ran = run(*[str(adapters / "ours") if word == "FOLDER" else word for word in arguments])
    assert ran.code == 1
    assert words in " ".join(ran.err.split())
