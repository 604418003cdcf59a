"""Nothing is lost: an interrupted search goes on as if it had not been interrupted, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from peft_interp.rl.trainer import RLPromptTrainer

Build = Callable[..., Any]
TIMES = ("runtime", "per_second")
# Two of six examples a step, so that the interruption after step 4 is in the middle of the second epoch
RUN = {"max_steps": 8, "examples_per_step": 2, "save_strategy": "steps", "save_steps": 4, "eval_strategy": "steps"}


def comparable(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Log entries without times; the last one's mean loss only covers the session."""
    return [{k: v for k, v in entry.items() if not any(t in k for t in TIMES)} for entry in history[:-1]]


def tensors(state: Any) -> list[torch.Tensor]:
    return [value for values in state["state"].values() for value in values.values()]


@pytest.fixture
def new_run(searcher: Build, tmp_path: Path) -> Build:
    """`new_run(folder, **arguments)`: model and trainer as a new process would make them, in other company."""

    def build(folder: str, **arguments: Any) -> RLPromptTrainer:
        settings = {**RUN, "eval_steps": 2, "perplexity_reward_weight": 0.2, "lr_scheduler_type": "linear"}
        return searcher(**{**settings, "output_dir": str(tmp_path / folder), **arguments})

    return build


def test_resumed_equals_uninterrupted(new_run: Build, tmp_path: Path) -> None:
    straight = new_run("straight")
    straight.train()
    resumed = new_run("straight")
    torch.manual_seed(99)  # another state than at the interruption
    resumed.args.output_dir = str(tmp_path / "resumed")
    resumed.search.archive_path = tmp_path / "resumed" / "archive.jsonl"
    (tmp_path / "resumed").mkdir()
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-4"))
    policies = [trainer.policy.state_dict() for trainer in (straight, resumed)]
    assert all(torch.equal(policies[0][name], policies[1][name]) for name in policies[0])
    assert {name.split(".")[0] for name in policies[0]} == {"head", "target_head"}
    for first, second in zip(*(tensors(t.optimizer.state_dict()) for t in (straight, resumed)), strict=True):
        assert torch.equal(first, second)
    assert straight.search.archive.records == resumed.search.archive.records
    files = [(tmp_path / name / "archive.jsonl").read_text() for name in ("straight", "resumed")]
    assert files[0] == files[1]
    states = [{k: v for k, v in t.search.state().items() if k != "policy"} for t in (straight, resumed)]
    assert states[0] == states[1]
    assert straight.model.prompt_token_ids() == resumed.model.prompt_token_ids()
    assert straight.model.best_prompt() == resumed.model.best_prompt()
    assert comparable(straight.state.log_history) == comparable(resumed.state.log_history)


def test_what_was_not_logged_yet_is_not_lost(new_run: Build, tmp_path: Path) -> None:
    """Step 4 is saved between the logs of steps 3 and 6; the second one covers steps 4 to 6 either way."""
    straight = new_run("run", logging_steps=3)
    straight.train()
    resumed = new_run("run", logging_steps=3)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    entries = [[e["reward"] for e in t.state.log_history if "reward" in e] for t in (straight, resumed)]
    assert entries[0] == entries[1]


def test_the_interrupted_half_really_has_to_be_restored(new_run: Build) -> None:
    straight, afresh = new_run("straight"), new_run("afresh", max_steps=4)
    straight.train()
    afresh.train()
    assert not torch.equal(straight.policy.head[0].weight, afresh.policy.head[0].weight)


def test_an_archive_written_after_the_checkpoint_is_cut_back_to_it(new_run: Build, tmp_path: Path) -> None:
    new_run("run").train()
    whole = (tmp_path / "run" / "archive.jsonl").read_text()
    resumed = new_run("run", max_steps=5)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    lines = (tmp_path / "run" / "archive.jsonl").read_text().splitlines()
    assert len(lines) < len(whole.splitlines())
    assert len(set(lines)) == len(lines)
    assert whole.startswith("\n".join(lines[:-6]))


def test_a_checkpoint_without_the_search_is_refused(new_run: Build, tmp_path: Path) -> None:
    new_run("run", save_only_model=True).train()
    with pytest.raises(ValueError, match=r"has no prompt_search.pt"):
        new_run("again").train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))


def test_a_run_on_an_adapter_that_was_shortened_before(searcher: Build, prompted: Build, tmp_path: Path) -> None:
    """A search may have made the prompt shorter; a resumed run begins with the length of the config."""
    run = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    short = prompted()
    short.use_prompt([7, 8], resize=True)
    straight = searcher(short, **run)
    straight.train()
    assert {len(record.ids) for record in straight.search.archive.records} == {2}
    resumed = searcher(prompted(), **run)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert resumed.search.archive.records == straight.search.archive.records
    assert resumed.model.prompt_token_ids() == straight.model.prompt_token_ids()
    assert resumed.model.best_prompt() == straight.model.best_prompt()


def test_an_adapter_of_another_name_is_resumed(searcher: Build, gpt2: Build, prompted: Build, tmp_path: Path) -> None:
    def named() -> Any:
        model = prompted()
        model.add_adapter("second", model.peft_config["default"])
        model.set_adapter("second")
        return model

    run = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    straight = searcher(named(), **run)
    straight.train()
    resumed = searcher(named(), **run)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert resumed.search.archive.records == straight.search.archive.records
    assert resumed.model.prompt_token_ids() == straight.model.prompt_token_ids()


def test_a_folder_without_an_adapter_is_refused_in_stock_words(new_run: Build, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="Can't find a valid checkpoint at"):
        new_run("run").train(resume_from_checkpoint=str(tmp_path / "empty"))
