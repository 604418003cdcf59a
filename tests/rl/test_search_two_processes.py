"""Two processes (gloo, CPU) do what one with twice the prompts does: same prompts, rewards, policy and best prompt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from peft_interp import RLPromptConfig, RLPromptTrainer, Verbalizer
from tests.builders import gpt2, readable
from tests.two_processes import on_two_processes


def letters(prompts: list[str], completions: list[str], **kwargs: Any) -> list[float]:
    return [float(sum(c in "13579" for c in text)) for text in completions]


def train(folder: str, tokenizer_dir: str, prompts: int, accumulation: int = 1) -> dict[str, Any]:
    """Archive, policy, logs and best prompt after four steps."""
    torch.manual_seed(0)
    model: Any = readable(gpt2(), num_virtual_tokens=3, tokenizer_name_or_path=tokenizer_dir)
    ids = torch.randint(10, 60, (10, 3), generator=torch.Generator().manual_seed(3)).tolist()
    rows = [{"sentence": " ".join(f"w{i}" for i in row), "label": sum(row) % 2} for row in ids]
    args = RLPromptConfig(
        folder,
        max_steps=4,
        learning_rate=1e-2,
        target_update_rate=0.05,
        policy_hidden_size=64,
        top_k=20,
        prompts_per_step=prompts,
        gradient_accumulation_steps=accumulation,
        examples_per_step=4,
        perplexity_reward_weight=0.3,
        eval_strategy="steps",
        eval_steps=2,
        eval_candidates=2,
        logging_steps=1,
        use_cpu=True,
        dataloader_pin_memory=False,
        save_strategy="no",
        disable_tqdm=True,
        report_to=[],
        ddp_backend="gloo" if "WORLD_SIZE" in os.environ else None,
    )
    trainer = RLPromptTrainer(
        model=model,
        args=args,
        train_dataset=rows[:6],
        eval_dataset=rows[6:],
        reward_funcs=letters,
        processing_class=AutoTokenizer.from_pretrained(tokenizer_dir),
        verbalizer=Verbalizer("{text} w4", ("w5", "w6")),
    )
    trainer.train()
    return {
        "processes": trainer.args.world_size,
        "archive": [(r.ids, r.step, r.split, r.rows, r.scores) for r in trainer.search.archive.records],
        "policy": {name: tensor.clone() for name, tensor in trainer.policy.state_dict().items()},
        "best": (model.prompt_token_ids(), model.best_prompt()),
        "logs": [e for e in trainer.state.log_history if "reward" in e],
    }


def assert_equal_runs(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert [entry[:4] for entry in first["archive"]] == [entry[:4] for entry in second["archive"]]
    for (*_, scores), (*_, others) in zip(first["archive"], second["archive"], strict=True):
        unknown, known = [name for name in others if others[name] is None], [n for n in others if others[n] is not None]
        assert all(name in scores and scores[name] is None for name in unknown)
        assert {n: v for n, v in scores.items() if n not in unknown} == pytest.approx(
            {name: others[name] for name in known}, rel=1e-4, abs=1e-5
        )
    for name, tensor in first["policy"].items():
        torch.testing.assert_close(tensor, second["policy"][name], rtol=1e-3, atol=1e-5)
    assert first["best"][0] == second["best"][0]
    assert first["best"][1][1] == pytest.approx(second["best"][1][1], rel=1e-4)
    for entry, other in zip(first["logs"], second["logs"], strict=True):
        numbers = {k: v for k, v in entry.items() if isinstance(v, float) and k != "grad_norm"}
        assert numbers == pytest.approx({k: other[k] for k in numbers}, rel=1e-3, abs=1e-4)
        assert entry.get("best_prompt") == other.get("best_prompt")


def test_two_processes_equal_one(tokenizer_dir: Path, tmp_path: Path) -> None:
    ranks = on_two_processes(tmp_path, train, str(tmp_path / "two"), str(tokenizer_dir), 3)
    alone = train(str(tmp_path / "alone"), str(tokenizer_dir), 6)
    assert alone["processes"] == 1
    for together in ranks:
        assert together["processes"] == 2
        assert_equal_runs(together, alone)
    lines = (tmp_path / "two" / "archive.jsonl").read_text().splitlines()
    assert len(lines) == len(alone["archive"]), "one process writes the archive"


def test_accumulated_batches_equal_one_large_batch(tokenizer_dir: Path, tmp_path: Path) -> None:
    """Rewards are compared within the whole step, not within each accumulated batch."""
    whole, parts = (train(str(tmp_path / str(n)), str(tokenizer_dir), 6 // n, n) for n in (1, 3))
    assert_equal_runs(parts, whole)
