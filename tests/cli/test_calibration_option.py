"""`--calibration`: numbers from training rows, never those measured, in what `read`, `evaluate` and `compare` say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from peft_interp import embedded

Build: TypeAlias = Callable[..., Any]
TASK = ("--task", "sentiment", "--rows", "12")


def test_reading_tells_the_numbers_and_the_prior(run: Build, adapters: Path, tmp_path: Path) -> None:
    ran = run("read", adapters / "ours", *TASK, "--calibration", "batch", "--json", "report.json")
    assert ran.code == 0, ran.err
    assert "This prompt needs 2 numbers besides its text" in " ".join(ran.out.split())
    assert "Is the gain more than the label prior?" in " ".join(ran.out.split())
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["label_prior"]["calibration_rows"] == 64
    assert report["label_bias"]["values"] == report["label_prior"]["as_prompt"]["bias"]
    assert report["context"]["calibration"] == "batch"


def test_evaluate_and_compare_take_it(run: Build, adapters: Path, tmp_path: Path) -> None:
    scores = json.loads(run("evaluate", adapters / "stock", *TASK, "--calibration", "content_free").out)
    assert scores["label_bias"]["rows"] == 3
    assert scores["faithfulness"]["label_bias"] == scores["label_bias"]["values"]
    plain = json.loads(run("evaluate", adapters / "stock", *TASK).out)
    assert not {"label_bias", "label_prior"} & set(plain)
    ran = run("compare", adapters / "ours", "Movie review:", *TASK, "--calibration", "fitted", "--json", "found.json")
    assert ran.code == 0, ran.err
    found = json.loads((tmp_path / "found.json").read_text())
    assert all(len(prompt["label_bias"]) == 2 for prompt in found["prompts"])


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, split in (("test.jsonl", "test"), ("train.jsonl", "train")):
        rows = embedded.load_data("sentiment")[split].select(range(12))
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_training_rows_of_a_file_are_named(run: Build, adapters: Path, files: Path) -> None:
    own = ("read", adapters / "ours", "--data", "test.jsonl", "--label-words", "terrible", "great")
    ran = run(*own, "--calibration", "batch", "--calibration-data", "train.jsonl")
    assert ran.code == 0, ran.err
    assert "batch calibration on 12 training rows" in " ".join(ran.out.split())
    for more, message in (
        (("--calibration", "batch"), "name their file with `--calibration-data`"),
        (("--calibration", "batch", "--calibration-data", "test.jsonl"), "12 of the 12 calibration rows are among"),
        (("--calibration-data", "train.jsonl"), "is not read with `--calibration none`"),
        (("--calibration", "mean"), "invalid choice: 'mean'"),
    ):
        ran = run(*own, *more)
        assert ran.code in (1, 2)
        assert message in ran.err


def test_it_needs_data_and_another_split(run: Build, adapters: Path) -> None:
    ran = run("read", adapters / "ours", "--calibration", "batch")
    assert (ran.code, "name them, `--task` or `--data`" in ran.err) == (1, True)
    ran = run("read", adapters / "ours", *TASK, "--split", "train", "--calibration", "batch")
    assert (ran.code, "it cannot estimate the label prior too" in ran.err) == (1, True)
