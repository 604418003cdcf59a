"""A search on what the model writes: screening, resuming, and two processes, as any other search."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model

from peft_interp import (
    InterpPromptConfig,
    PromptSearchConfig,
    PromptSearchTrainer,
    RLPromptConfig,
    RLPromptTrainer,
    embedded,
    exact_match_reward,
    on_answers,
)
from tests.two_processes import on_two_processes

# Both searches, each with what makes it small
POPULATION = {"human_starts": 2, "proposals_per_prompt": 2, "population_size": 4, "screening_examples": 3}
POLICY = {"policy_hidden_size": 16, "top_k": 20, "learning_rate": 1e-2, "perplexity_reward_weight": 0.2}
KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "search": (PromptSearchTrainer, PromptSearchConfig, POPULATION),
    "rl": (RLPromptTrainer, RLPromptConfig, POLICY),
}
both = pytest.mark.parametrize("kind", list(KINDS))


def searcher(folder: str, kind: str = "search", prompts: int = 4, accumulation: int = 1, **more: Any) -> Any:
    """On the embedded model: sampled answers of three tokens, rewarded where they name the label."""
    torch.manual_seed(0)
    files: dict[str, Any] = {"tokenizer_name_or_path": embedded.MODEL_PATH, "allowed_tokens": "printable"}
    model: Any = get_peft_model(
        embedded.load_model(), InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=6, **files)
    )
    task = embedded.TASKS["sentiment"]
    rows = sorted(embedded.load_data("sentiment")["train"], key=lambda row: len(row["sentence"]))[:12]
    rows = [{"text": task.fill(row["sentence"]), "answer": task.label_words[row["label"]]} for row in rows]
    quiet = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "use_cpu": True, "max_steps": 2}
    trainer, config, own = KINDS[kind]
    size: dict[str, Any] = {"eval_candidates": 2, "logging_steps": 1, **own}
    size |= {"dataloader_pin_memory": False, "gradient_accumulation_steps": accumulation}
    size |= {"ddp_backend": "gloo" if "WORLD_SIZE" in os.environ else None}
    return trainer(
        model,
        config(folder, prompts_per_step=prompts, **{**quiet, **size, **more}),
        rows[::2],
        rows[1::2],
        embedded.load_tokenizer(),
        reward_funcs=on_answers(exact_match_reward(), max_new_tokens=1, do_sample=True, temperature=0.7),
        text_column="text",
    )


def test_a_search_remembers_answers_of_screened_rows(tmp_path: Path) -> None:
    trainer = searcher(str(tmp_path))
    trainer.train()
    search = trainer.search
    assert search.scorer._writer.written < search.evaluations, "rows of the first round are not written again"
    scores = [record.scores["exact_match"] for record in search.archive.records]
    assert 0 <= min(scores) < max(scores) <= 1
    front = trainer.front("dev")
    assert all(a.scores["exact_match"] >= b.scores["exact_match"] for a, b in pairwise(front))


@both
def test_a_resumed_search_equals_an_uninterrupted_one(tmp_path: Path, kind: str) -> None:
    run = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    straight = searcher(str(tmp_path / "straight"), kind, **run)
    straight.train()
    resumed = searcher(str(tmp_path / "resumed"), kind, **run)
    torch.manual_seed(99)
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-1"))
    assert straight.search.archive.records == resumed.search.archive.records
    assert straight.front() == resumed.front()
    assert len({record.scores["exact_match"] for record in straight.search.archive.records}) > 1
    assert straight.model.prompt_token_ids() == resumed.model.prompt_token_ids()


def run_search(folder: str, kind: str, prompts: int) -> dict[str, Any]:
    """Archive and best prompt, as plain data."""
    trainer = searcher(folder, kind, prompts)
    trainer.train()
    found = [(r.ids, r.step, r.split, r.rows, r.scores["exact_match"]) for r in trainer.search.archive.records]
    return {"archive": found, "best": trainer.model.prompt_token_ids(), "processes": trainer.args.world_size}


@both
def test_two_processes_equal_one(tmp_path: Path, kind: str) -> None:
    alone = run_search(str(tmp_path / "alone"), kind, 4)
    for together in on_two_processes(tmp_path, run_search, str(tmp_path / "two"), kind, 2):
        assert together["processes"] == 2
        assert together["archive"] == alone["archive"]
        assert together["best"] == alone["best"]
