"""A report is stored and read again without loss."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peft_interp.hub.scores import plain_report
from peft_interp.metrics.results import Measure
from peft_interp.report import PromptReport

Build = Callable[..., Any]


@pytest.mark.parametrize("name", ["good", "soft", "hostile"])
def test_a_report_survives_json(name: str, request: pytest.FixtureRequest) -> None:
    report: PromptReport = request.getfixturevalue(name)
    again = PromptReport.from_dict(json.loads(json.dumps(report.to_dict(), allow_nan=False)))
    assert again == report
    assert again.to_html() == report.to_html()


def test_the_least_report_survives(reading: Build, report_of: Build) -> None:
    report = report_of(reading())
    assert PromptReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_numbers_that_json_cannot_hold_come_back_as_nan(good: PromptReport, judged: Build) -> None:
    report = replace(good, scrutability=judged(nll=Measure(math.nan)))
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    again = PromptReport.from_dict(plain)
    assert again.scrutability is not None
    assert math.isnan(again.scrutability.measures["nll"].value)
    assert again.scrutability.measures["nll"].human is None
    for text in (again.to_html(), again.to_markdown(), again.to_text()):
        assert "nan" not in text.lower().split()


def test_a_later_schema_is_refused_and_unknown_keys_are_not(good: PromptReport) -> None:
    plain = good.to_dict()
    with pytest.raises(ValueError, match="`schema=99` is later than 1"):
        PromptReport.from_dict({**plain, "schema": 99})
    with pytest.raises(ValueError, match="no prompt report"):
        PromptReport.from_dict({"text": "x"})
    assert PromptReport.from_dict({**plain, "new": 1}) == good


def test_the_ending_of_a_file_chooses_the_form(good: PromptReport, tmp_path: Path) -> None:
    assert good.save(tmp_path / "a" / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert PromptReport.load(good.save(tmp_path / "report.json")) == good
    folder = good.save(tmp_path / "folder")
    assert sorted(path.suffix for path in folder.iterdir()) == [".html", ".json", ".md", ".txt"]
    assert PromptReport.load(folder) == good
    with pytest.raises(ValueError, match=r"`report\.pdf` must end in"):
        good.save(tmp_path / "report.pdf")


def test_differences_and_answers_are_stored_and_computed_again(good: PromptReport) -> None:
    plain = good.to_dict()["faithfulness"]
    assert plain["loss_difference"] == 0
    assert plain["accuracy_difference"] == 0
    assert plain["answers"]["label_words"] == [" terrible", " great"]
    again = PromptReport.from_dict(json.loads(json.dumps(good.to_dict())))
    assert again.faithfulness.answers == good.faithfulness.answers
    old = {name: value for name, value in plain.items() if name not in ("loss_difference", "answers", "answered")}
    older = PromptReport.from_dict({**good.to_dict(), "faithfulness": old})
    assert older.faithfulness.loss_difference == 0
    assert older.faithfulness.answers is None


def test_answers_that_are_no_label_word_are_refused(good: PromptReport) -> None:
    for place, wrong in (("label", 2), ("label", -1), ("as_prompt", 2), ("as_text", -2), ("without", 9)):
        plain = json.loads(json.dumps(good.to_dict()))
        plain["faithfulness"]["answered"]["examples"][0]["answers"][place] = wrong
        with pytest.raises(ValueError, match=r"`report\.faithfulness\.answered` has answers that are no label word"):
            PromptReport.from_dict(plain)


def test_rows_of_the_data_are_not_passed_on(good: PromptReport) -> None:
    plain = plain_report(good)
    assert "enjoyable movie" in json.dumps(good.to_dict())
    assert "enjoyable movie" not in json.dumps(plain)
    assert plain["faithfulness"]["answered"]["patterns"] == good.to_dict()["faithfulness"]["answered"]["patterns"]
    assert PromptReport.from_dict(plain).verdicts == good.verdicts
