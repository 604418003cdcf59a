"""`studies/generation`: tiny points as a user runs them, and the figures from records by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peft_interp import embedded
from studies.generation.__main__ import main
from studies.generation.points import POINTS, read_points
from studies.generation.tables import README, figures, tables
from studies.generation.tasks import TASKS, arithmetic_rows, drawn_rows, encoded, last_number, task_named

PROBLEM = {"question": "Tom has 2 bags of 3 nuts and eats 1. How many?", "answer": "<<2*3=6>>6, <<6-1=5>>5\n#### 5"}


def point(scores: dict[str, list[float]]) -> dict[str, Any]:
    test = {
        way: {"text": f"{way}?", "scores": values, "answers": ["a|b"], "commonest": "a", "times": 1}
        for way, values in scores.items()
    }
    return {"test": test, "search": {"yields": {"paraphrase": 0.25}}}


def test_a_point_is_run_once_and_goes_into_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--model_name_or_path", "embedded", "--tasks", "json", "label", "--points", str(tmp_path), "--trial"]
    main(command)
    found = read_points(tmp_path)
    assert set(found) == {"json-0", "label-0"}
    for key, record in found.items():
        task = task_named(key.partition("-")[0])
        best = max(record["written"].values())
        assert record["written"][record["test"]["written"]["text"]] == best
        assert set(record["written"]) == set(task.written)
        assert record["search"]["prompts"] >= 6
        assert record["test"]["search"]["text"] == record["search"]["text"] != ""
        assert record["test"]["shown"]["text"].partition(" For example: ")[0] in task.written
        assert all(len(way["scores"]) == 6 and min(way["scores"]) >= 0 for way in record["test"].values())
    shown = capsys.readouterr().out
    assert "Not run: first_sentence, arithmetic." in shown
    main([*command, "--test_again"])
    assert read_points(tmp_path) == found  # the same model says the same
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    main(command)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_figures_by_hand() -> None:
    points = {
        "json-0": point({"none": [0, 0, 0, 0], "written": [1, 0, 0, 0], "shown": [1, 0, 1, 0], "search": [1, 1, 0, 1]}),
        "json-1": point({"none": [0, 0, 0, 0], "written": [1, 1, 0, 0], "shown": [1, 1, 0, 0], "search": [1, 1, 0, 0]}),
        "label-0": point({"none": [0, 1], "written": [1, 1], "shown": [1, 1], "search": [1, 0.8]}),
    }
    found = figures(points)
    assert (found["json"]["points"], found["json"]["rows"]) == (2, 4)
    assert [found["json"][way] for way in ("none", "written", "shown", "search")] == pytest.approx([0, 37.5, 50, 62.5])
    assert found["json"]["gain"] == pytest.approx(25)
    assert found["json"]["low"] < 0 < 25 < found["json"]["high"]
    assert found["label"]["gain"] == pytest.approx(-10)
    text = tables(points)
    assert "+10: met" in text
    assert "+10: missed" in text
    assert "`a/b`" in text
    assert "1 of 4: `a`" in text
    assert "Not run: first_sentence, arithmetic." in text


def test_the_readme_shows_the_points_that_are_there() -> None:
    points = read_points(POINTS)
    assert tables(points) in README.read_text(encoding="utf-8")


def test_rows_of_two_splits_differ_and_the_answer_is_what_is_rewarded() -> None:
    tokenizer = embedded.load_tokenizer()
    for task in TASKS[:3]:
        train, dev = (drawn_rows(task, Path(), split, 24, 0) for split in ("train", "validation"))
        assert not {row["text"] for row in train} & {row["text"] for row in dev}
        columns = {"answer": [row["answer"] for row in train]}
        assert task.goal(completions=[row["answer"] for row in train], **columns) == [1.0] * 24
        assert encoded(tokenizer, train).inputs == [row["text"] for row in train]
        assert len(task.written) == 5
    with pytest.raises(ValueError, match=r"the task 'label' has .* train rows, and 10000 were asked for"):
        drawn_rows(TASKS[1], Path(), "train", 10000, 0)


def test_word_problems_of_two_calculations(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    one = {"question": "1 + 1?", "answer": "<<1+1=2>>2\n#### 2"}
    for name in ("train", "test"):
        lines = [json.dumps({**PROBLEM, "question": f"{name} {i}: {PROBLEM['question']}"}) for i in range(4)]
        (folder / f"gsm8k_{name}.jsonl").write_text("\n".join([json.dumps(one), *lines]))
    found = {split: arithmetic_rows(split, tmp_path) for split in ("train", "validation", "test")}
    assert {split: len(rows) for split, rows in found.items()} == {"train": 2, "validation": 2, "test": 4}
    assert found["test"][0] == {"text": f"test 0: {PROBLEM['question']}", "answer": "5"}
    assert not {row["text"] for row in found["train"]} & {row["text"] for row in found["validation"]}
    with pytest.raises(FileNotFoundError, match="name the folder that holds it with `--data_dir`"):
        arithmetic_rows("test", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "wanted", "value"),
    [
        ("2 * 3 = 6, so 5.", "5", 1),
        ("It costs $1,250.00 in all", "1250", 1),
        ("5 of 6", "5", 0),
        ("none", "5", 0),
        ("-3", "3", 0),
    ],
)
def test_the_last_number_counts(text: str, wanted: str, value: float) -> None:
    assert last_number([text], [wanted]) == [value]
