"""However a run ends, what it paid for is on the disk; and no run takes another one's archive away."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peft_interp.scoring.archive import Archive
from tests import processes

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


def test_it_is_on_the_disk_after_every_step(searcher: Build, tmp_path: Path) -> None:
    """Whatever `logging_steps` is: a SIGKILL can lose no more than the step that is running."""
    seen: list[set[int]] = []

    def look(completions: list[str], trainer_state: Any, **kwargs: Any) -> list[float]:
        path = tmp_path / "run" / "archive.jsonl"
        seen.append({record.step for record in Archive.read(path).records} if path.exists() else set())
        return [1.0 * len(text) for text in completions]

    searcher(max_steps=4, logging_steps=100, options={"reward_funcs": look, "eval_dataset": None}).train()
    assert seen[:4] == [set(), {0}, {0, 1}, {0, 1, 2}]


def test_sigterm_ends_a_run_like_ctrl_c(searcher: Build, tmp_path: Path) -> None:
    def scheduler(completions: list[str], trainer_state: Any, **kwargs: Any) -> list[float]:
        if trainer_state.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return [1.0 * len(text) for text in completions]

    trainer = searcher(max_steps=9, logging_steps=10, options={"reward_funcs": scheduler})
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        trainer.train()
    assert {record.step for record in written(tmp_path / "run")} >= {0, 1}
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_half_written_checkpoint_is_passed_over(searcher: Build, tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 6}
    whole = searcher(**saving)
    whole.train()
    expected = (tmp_path / "run" / "archive.jsonl").read_text()
    for name, keep in (("checkpoint-6/trainer_state.json", 40), ("checkpoint-4/prompt_search.pt", 900)):
        path = tmp_path / "run" / name
        path.write_bytes(path.read_bytes()[:keep])
    resumed = searcher(**saving)
    with pytest.warns(UserWarning, match=r"checkpoint-[46]' is passed over: it is half-written") as told:
        resumed.train(resume_from_checkpoint=True)
    assert len([w for w in told if "half-written" in str(w.message)]) == 2
    assert (tmp_path / "run" / "archive.jsonl").read_text() == expected
    assert resumed.model.prompt_token_ids() == whole.model.prompt_token_ids()
    with pytest.raises(ValueError, match="has no complete checkpoint"):
        searcher(output_dir=str(tmp_path / "other")).train(resume_from_checkpoint=True)


def test_a_second_run_in_the_same_folder_is_refused(searcher: Build, tmp_path: Path) -> None:
    code = "from peft_interp.storage.runs import RunLock; import sys, time; lock = RunLock(sys.argv[1]); print('held', "
    told, tell = os.pipe()
    other = processes.start("-c", f"{code}flush=True); time.sleep(60)", str(tmp_path / "run"), stdout=tell)
    os.close(tell)
    try:
        with open(told) as printed:
            assert printed.readline() == "held\n"
        with pytest.raises(ValueError, match=f"process {other.pid} is training in .*another `output_dir`"):
            searcher().train()
        assert not (tmp_path / "run" / "archive.jsonl").exists()
    finally:
        other.kill()
        other.wait()
    searcher(max_steps=1).train()  # a dead process holds nothing


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
