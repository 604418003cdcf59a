"""One step of each search on SmolLM2."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peft_interp import PromptSearchConfig, PromptSearchTrainer, RLPromptConfig, RLPromptTrainer, embedded
from peft_interp.scoring.candidates import Candidate
from peft_interp.search.constraints import ConstraintInputs, Constraints, description_of

Build = Callable[..., Any]
QUIET = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "max_steps": 1, "logging_steps": 1}
QUIET |= {"use_cpu": True, "dataloader_pin_memory": False, "eval_candidates": 2}


def parts(tokenizer: Any, reviews: list[dict[str, Any]]) -> dict[str, Any]:
    task = embedded.TASKS["sentiment"]
    rows = {"train_dataset": reviews[:4], "eval_dataset": reviews[4:]}
    return {**rows, "processing_class": tokenizer, "verbalizer": task}


def test_search(adapter: Build, tokenizer: Any, reviews: list[dict[str, Any]], tmp_path: Path) -> None:
    sizes = {"prompts_per_step": 4, "human_starts": 3, "proposals_per_prompt": 2, "population_size": 4}
    args = PromptSearchConfig(output_dir=str(tmp_path), screening_examples=None, **sizes, **QUIET)
    trainer = PromptSearchTrainer(adapter(allowed_tokens="printable"), args, **parts(tokenizer, reviews))
    trainer.train()
    records = trainer.search.archive.records
    assert len({record.ids for record in records}) >= 4
    assert all(math.isfinite(record.scores["nll"]) for record in records)
    assert all(tokenizer.encode(record.text) == list(record.ids) for record in trainer.front("train"))
    assert trainer.model.prompt_text(tokenizer) in {record.text for record in records}


def test_rlprompt(adapter: Build, tokenizer: Any, reviews: list[dict[str, Any]], tmp_path: Path) -> None:
    args = RLPromptConfig(
        output_dir=str(tmp_path),
        prompts_per_step=3,
        top_k=64,
        policy_hidden_size=32,
        perplexity_reward_weight=0.1,
        **QUIET,
    )
    trainer = RLPromptTrainer(adapter(), args, **parts(tokenizer, reviews))
    before = {name: value.clone() for name, value in trainer.search.policy.head.named_parameters()}
    trainer.train()
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    assert len(rewards) == 1
    assert math.isfinite(rewards[0])
    after = dict(trainer.search.policy.head.named_parameters())
    assert any((after[name] != value).any() for name, value in before.items())


def test_rlprompt_script_rewards_a_prompt_for_naming_its_task(run_script: Build, tmp_path: Path) -> None:
    """On the embedded model; the sentence encoder comes with SmolLM2."""
    small = ["--prompts_per_step", "4", "--max_train_samples", "8", "--max_eval_samples", "8", "--max_steps", "1"]
    task = ["--task_description", "Say whether a film review is positive or negative.", "--task_naming_weight", "2"]
    run_script(tmp_path, "run_rlprompt.py", "--output_dir", "out", *small, *task, "--logging_steps", "1")
    records = [json.loads(line) for line in (tmp_path / "out" / "archive.jsonl").read_text().splitlines()]
    assert all("task_naming" in record["scores"] for record in records)
    found_by = json.loads((tmp_path / "out" / "adapter_config.json").read_text())["peft_interp"]["found_by"]
    assert found_by["settings"]["reward_weights"] == [2.0]


def test_what_names_its_task_without_a_description(tokenizer: Any) -> None:
    """By the real encoder: a question made of the label words tells a prompt for the task from others."""
    for words in (("terrible", "great"), ("World", "Sports", "Business", "Technology")):
        config = PromptSearchConfig("unused", names_its_task=True, report_to=[], use_cpu=True)
        check = Constraints(ConstraintInputs(config, tokenizer, words, ("The striker scored twice.", "A dull film.")))
        named = [f"Is it {' or '.join(words)}?", description_of(config, words)]
        others = ["I want you to act as the Assistant's mentor.", "Write a poem.", "What is the capital of France?"]
        prompts = [Candidate(tuple(tokenizer.encode(text)), text, True, True) for text in (*named, *others)]
        assert check.broken(prompts) == ["", "", "naming", "naming", "naming"]
