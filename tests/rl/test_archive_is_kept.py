"""However a run ends, what it paid for is on the disk; and no run takes another one's archive away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peft_interp.scoring.archive import Archive

Build = Callable[..., Any]


def written(folder: Path) -> list[Any]:
    return Archive.read(folder / "archive.jsonl").records


def test_a_run_without_logs_evaluations_and_saves_leaves_it(searcher: Build, tmp_path: Path) -> None:
    trainer = searcher(max_steps=3, logging_steps=10, options={"eval_dataset": None})
    trainer.train()
    assert written(tmp_path / "run") == trainer.search.archive.records
    assert len(written(tmp_path / "run")) >= 18


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("place", ["reward", "policy"])
def test_an_interrupted_run_leaves_it(
    error: type[BaseException], place: str, searcher: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(completions: list[str], trainer_state: Any, **kwargs: Any) -> list[float]:
        if place == "reward" and trainer_state.global_step == 2:
            raise error("stop")
        return [1.0 * len(text) for text in completions]

    trainer = searcher(max_steps=9, logging_steps=10, options={"reward_funcs": slow})
    sample, calls = trainer.search.policy.sample, []

    def failing(*args: Any) -> Any:
        calls.append(1)
        if place == "policy" and len(calls) == 3:
            raise error("stop")
        return sample(*args)

    monkeypatch.setattr(trainer.search.policy, "sample", failing)
    with pytest.raises(error, match="stop"):
        trainer.train()
    assert {record.step for record in written(tmp_path / "run")} == {0, 1}


def test_another_runs_archive_is_put_aside_when_resuming(searcher: Build, tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2}
    searcher(output_dir=str(tmp_path / "a"), **saving).train()
    searcher(output_dir=str(tmp_path / "b"), seed=5).train()
    others = (tmp_path / "b" / "archive.jsonl").read_text()
    resumed = searcher(output_dir=str(tmp_path / "b"), **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    assert (tmp_path / "b" / "archive-1.jsonl").read_text() == others
    assert written(tmp_path / "b") == resumed.search.archive.records
    assert (tmp_path / "b" / "archive.jsonl").read_text() == (tmp_path / "a" / "archive.jsonl").read_text()


def test_a_runs_own_archive_is_continued(searcher: Build, tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2}
    searcher(**saving).train()
    whole = (tmp_path / "run" / "archive.jsonl").read_text()
    searcher(**saving).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert (tmp_path / "run" / "archive.jsonl").read_text() == whole
    assert not (tmp_path / "run" / "archive-1.jsonl").exists()
