"""An interrupted search goes on as if it had not been interrupted, and two processes do what one does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model

from peft_interp import InterpPromptConfig, PromptSearchConfig, PromptSearchTrainer, embedded
from tests.two_processes import on_two_processes

Build = Callable[..., Any]
TIMES = ("runtime", "per_second")


def comparable(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in entry.items() if not any(t in k for t in TIMES)} for entry in history[:-1]]


def test_resumed_search_equals_an_uninterrupted_one(searcher: Build, resumed: Build, tmp_path: Path) -> None:
    straight, second = resumed(searcher, logging_steps=1, screening_examples=4)
    assert straight.search.archive.records == second.search.archive.records
    assert straight.search.members == second.search.members
    assert straight.search.evaluations == second.search.evaluations
    assert straight.search.prompt_passes == second.search.prompt_passes
    assert set(straight.search.worst) == {"train", "dev"}
    assert straight.search.worst == second.search.worst
    assert set(straight.search.features) == set(second.search.features)
    assert all(torch.equal(v, second.search.features[k]) for k, v in straight.search.features.items())
    assert straight.model.prompt_token_ids() == second.model.prompt_token_ids()
    assert straight.front() == second.front()
    assert comparable(straight.state.log_history) == comparable(second.state.log_history)
    files = [(tmp_path / name / "archive.jsonl").read_text() for name in ("straight", "resumed")]
    assert files[0] == files[1]


def test_a_checkpoint_of_an_older_version(searcher: Build) -> None:
    """It knows where the front of the training data begins; the next evaluation finds the other beginning."""
    straight = searcher(options={"eval_dataset": None})
    straight.train()
    state = straight.search.state()
    state["worst_reward"] = state.pop("worst_rewards")["train"]
    del state["prompt_passes"]
    resumed = searcher(max_steps=1)
    resumed.search.archive = straight.search.archive
    resumed.search.load_state(state)
    assert resumed.search.worst == straight.search.worst
    assert (
        resumed.search.hypervolume(resumed.front("train")) == straight.search.hypervolume(straight.front("train")) > 0
    )
    assert resumed.search.prompt_passes == 0
    resumed.train()
    assert set(resumed.search.worst) == {"train", "dev"}
    assert resumed.search.hypervolume(resumed.front("dev")) > 0


def train(folder: str, prompts: int, accumulation: int = 1) -> dict[str, Any]:
    """Archive and best prompt after three steps."""
    torch.manual_seed(0)
    files: dict[str, Any] = {"tokenizer_name_or_path": embedded.MODEL_PATH}
    config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=6, allowed_tokens="printable", **files)
    model: Any = get_peft_model(embedded.load_model(), config)
    rows = sorted(embedded.load_data("sentiment")["train"], key=lambda row: len(row["sentence"]))[:12]
    args = PromptSearchConfig(
        folder,
        max_steps=3,
        prompts_per_step=prompts,
        gradient_accumulation_steps=accumulation,
        human_starts=6,
        proposals_per_prompt=4,
        screening_examples=4,
        eval_candidates=4,
        population_size=8,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="no",
        use_cpu=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to=[],
        ddp_backend="gloo" if "WORLD_SIZE" in os.environ else None,
    )
    trainer = PromptSearchTrainer(
        model, args, rows[::2], rows[1::2], embedded.load_tokenizer(), embedded.TASKS["sentiment"]
    )
    trainer.train()
    return {
        "processes": trainer.args.world_size,
        "archive": [(r.ids, r.step, r.split, r.rows) for r in trainer.search.archive.records],
        "rewards": [trainer.search.scorer.reward(r.scores) for r in trainer.search.archive.records],
        "best": model.prompt_token_ids(),
        "evaluations": (trainer.search.evaluations, trainer.search.prompt_passes),
    }


def assert_equal_runs(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first["archive"] == second["archive"]
    torch.testing.assert_close(torch.tensor(first["rewards"]), torch.tensor(second["rewards"]), rtol=1e-4, atol=1e-3)
    assert first["best"] == second["best"]
    assert first["evaluations"] == second["evaluations"]


def test_two_searching_processes_equal_one(tmp_path: Path) -> None:
    alone = train(str(tmp_path / "alone"), 8)
    assert_equal_runs(train(str(tmp_path / "parts"), 2, 4), alone)
    for together in on_two_processes(tmp_path, train, str(tmp_path / "two"), 4):
        assert together["processes"] == 2
        assert_equal_runs(together, alone)
