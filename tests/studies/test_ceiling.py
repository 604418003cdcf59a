"""`studies/ceiling`: texts from parts and from rows, a tiny run as a user starts it, and its tables by hand."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from studies.ceiling.__main__ import DRAWS, RESULTS, SHOTS, main
from studies.ceiling.tables import README, by_score, tables
from studies.ceiling.texts import WORDS, instructions
from studies.tradeoff.bench import load_tokenizer
from studies.tradeoff.config import read_study
from studies.tradeoff.data import demonstrations, load_task

CONFIG = """
model_name_or_path = "embedded"
splits = [13]
shots = 4
test_rows = 8

[tasks.agnews]
dataset_name = "embedded:topic"
template = "{prompt} {text} It was"
label_words = ["world", "sports", "business", "technology"]

[[settings]]
method = "empty"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(CONFIG)
    return path


def test_instructions_differ_name_the_task_and_keep_their_order() -> None:
    for words in WORDS.values():
        first = list(islice(instructions(words), 300))
        assert len(set(first)) == 300
        assert first[:50] == list(islice(instructions(words), 50))
        assert not any("{" in text for text in first)
        asked = tuple(word.lower() for word in (*words.asks, *words.classes))
        assert all(any(word in text.lower() for word in asked) for text in first)


def test_demonstrations_have_every_label_and_the_shorter_rows(config: Path) -> None:
    study = read_study(config)
    data = load_task(study, study.task("agnews"), 13, load_tokenizer(study.tokenizer_path))
    lines = demonstrations(data, 8, 0).splitlines()
    assert sorted(line.split()[-1] for line in lines) == sorted(2 * list(data.settings.label_words))
    of = {f"{text} It was {data.settings.label_words[label]}": label for text, label in data.texts["train"]}
    for line in lines:
        own = sorted(len(text) for text, label in data.texts["train"] if label == of[line])
        assert len(line) - len(f" It was {line.split()[-1]}") <= own[1]
    assert demonstrations(data, 8, 0) != demonstrations(data, 8, 1)
    with pytest.raises(ValueError, match="6 examples are no multiple of agnews's 4 labels"):
        demonstrations(data, 6, 0)


def test_a_run_scores_texts_and_goes_on_where_it_stopped(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.json"
    command = ["--config", str(config), "--results", str(path), "--instructions"]
    main([*command, "2"])
    first = json.loads(path.read_text())["agnews 13, embedded in float32 on cpu"]
    assert len(first) == 1 + len(SHOTS) * DRAWS + 2
    assert all("test" in record for record in first.values())
    main([*command, "3"])
    second = json.loads(path.read_text())["agnews 13, embedded in float32 on cpu"]
    assert {text: second[text] for text in first} == first
    assert len(second) == len(first) + 1
    shown = capsys.readouterr().out
    assert "| agnews 13, embedded in float32 on cpu | 4 examples | 5 |" in shown
    assert "best on validation rows of agnews 13" in shown


def test_tables_by_hand() -> None:
    records = {
        "": {"kind": "none", "train": 0.5, "dev": 0.7, "test": 0.65},
        "A | b?": {"kind": "instruction", "train": 0.8, "dev": 0.6, "test": 0.5},
        "C": {"kind": "instruction", "train": 0.4, "dev": 0.4},
    }
    assert by_score(records) == ["", "A | b?", "C"]
    shown = tables({"films 0": records})
    assert "| films 0 | instruction | 2 | 50% | 60% | 1 | 50% | 50% to 50% |" in shown
    assert "| `A / b?` | 60% | 50% |" in shown
    assert "| (no prompt) | 70% | 65% |" in shown


def test_the_published_tables_are_those_of_the_results() -> None:
    done = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert tables(done) in README.read_text(encoding="utf-8")
