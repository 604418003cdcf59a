"""The terminal form: 80 columns, and no text of the prompt is taken for markup."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from peft_interp.report import PromptReport

Build = Callable[..., Any]


@pytest.mark.parametrize("name", ["good", "soft", "hostile"])
def test_eighty_columns_are_enough(name: str, request: pytest.FixtureRequest) -> None:
    report: PromptReport = request.getfixturevalue(name)
    lines = report.to_text().splitlines()
    assert max(len(line) for line in lines) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in report.to_text()


def test_prompt_verdict_tokens_and_scores_are_shown(soft: PromptReport) -> None:
    text = " ".join(soft.to_text().split())
    assert "the of harmless wordsing" in text
    assert "x no Does the text do what the prompt does? do not explain this soft prompt by its nearest tokens" in text
    assert "\N{OPEN BOX}harmless 0.93" in text
    assert "log-perplexity 3.10 people 3.40, shuffled 5.90," in text


def test_texts_are_no_markup(hostile: PromptReport) -> None:
    text = hostile.to_text()
    assert "[red]" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_show_prints_and_rich_takes_the_report(good: PromptReport, capsys: pytest.CaptureFixture[str]) -> None:
    good.show()
    assert "Is this film good?" in capsys.readouterr().out
    console = Console(file=io.StringIO(), width=80)
    console.print(good)
    assert "Is this film good?" in console.file.getvalue()


def test_the_least_report_is_shown(reading: Build, report_of: Build) -> None:
    text = report_of(reading()).to_text()
    assert "no data given" in text
    assert "main scores" not in text


def test_both_distances_of_a_soft_prompt_are_shown(soft: PromptReport) -> None:
    text = " ".join(soft.to_text().split())
    assert "\N{OPEN BOX}harmless 0.93 1.86" in text
    assert "(usual) 0.55 1.20" in text
    assert "euclidean distance 3.00 token to token 1.20" in text
