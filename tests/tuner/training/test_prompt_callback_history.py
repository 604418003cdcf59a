"""`PromptCallback` keeps every prompt it logged: in memory, in a file at the end, and over an interruption."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, Trainer

from peft_interp import PromptCallback

Build = Callable[..., Any]


@pytest.fixture
def searched(gpt2: Build, readable: Build, learner: Build, rows_for: Build, tokenizer_dir: Path) -> Build:
    """`searched(folder, resume=None, **arguments)`: callback and Trainer after six steps in which tokens change."""

    def run(folder: Path, resume: str | None = None, **arguments: Any) -> tuple[PromptCallback, Trainer]:
        callback = PromptCallback(AutoTokenizer.from_pretrained(tokenizer_dir))
        settings = {"learning_rate": 0.3, "max_steps": 6, "output_dir": str(folder), **arguments}
        trainer = learner(readable(gpt2()), rows_for("CAUSAL_LM"), {"callbacks": [callback]}, **settings)
        trainer.train(resume_from_checkpoint=resume)
        return callback, trainer

    return run


def read_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "prompt_history.jsonl").read_text(encoding="utf-8").splitlines()]


def test_history_has_every_changed_prompt_once(searched: Build, tmp_path: Path) -> None:
    callback, trainer = searched(tmp_path)
    logged = [(entry["step"], entry["prompt_text"]) for entry in trainer.state.log_history if "loss" in entry]
    changed = [logged[0]] + [new for old, new in pairwise(logged) if old[1] != new[1]]
    assert len(changed) > 2
    assert [(record["step"], record["text"]) for record in callback.history] == changed
    assert callback.history[-1]["ids"] == trainer.model.prompt_token_ids()


def test_history_is_written_and_says_which_prompt_was_kept(searched: Build, tmp_path: Path) -> None:
    callback, trainer = searched(tmp_path)
    lines = read_lines(tmp_path)
    assert [{name: line[name] for name in ("step", "text", "ids", "scores")} for line in lines] == callback.history
    kept = [line for line in lines if line["kept"]]
    assert [line["ids"] for line in kept] == [trainer.model.prompt_token_ids()]


def test_history_of_an_interrupted_run_is_that_of_an_uninterrupted_one(searched: Build, tmp_path: Path) -> None:
    whole, _ = searched(tmp_path / "whole")
    searched(tmp_path / "cut", max_steps=3, save_strategy="steps", save_steps=3)
    resumed, _ = searched(tmp_path / "cut", resume=str(tmp_path / "cut" / "checkpoint-3"))
    assert [record["step"] for record in whole.history if record["step"] <= 3]
    assert [record["step"] for record in whole.history if record["step"] > 3]
    assert resumed.history == whole.history
    assert read_lines(tmp_path / "cut") == read_lines(tmp_path / "whole")


def test_the_shown_line_is_short(searched: Build, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _, trainer = searched(tmp_path)
    printed = capfd.readouterr().out
    assert "prompt_text" in printed
    assert "prompt/" not in printed
    assert "prompt/changed_share" in trainer.state.log_history[0]


def test_a_long_prompt_is_cut_in_the_line_only(
    gpt2: Build,
    readable: Build,
    learner: Build,
    rows_for: Build,
    tokenizer_dir: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Trainer's progress bar shows nothing of a text of more than 100 letters."""
    callback = PromptCallback(AutoTokenizer.from_pretrained(tokenizer_dir))
    model = readable(gpt2(), num_virtual_tokens=40)
    trainer = learner(model, rows_for("CAUSAL_LM"), {"callbacks": [callback]}, disable_tqdm=False, max_steps=1)
    trainer.train()
    text = trainer.state.log_history[0]["prompt_text"]
    printed = capfd.readouterr().out
    assert len(text) > 100
    assert f"{text[:59]}\N{HORIZONTAL ELLIPSIS}" in printed
    assert "too long" not in printed
