"""On a real language model the search finds better prompts than as many random ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from peft import get_peft_model

from peft_interp import InterpPromptConfig
from peft_interp.embedded import TASKS, load_data, load_model, load_tokenizer
from peft_interp.rl.config import RLPromptConfig
from peft_interp.rl.trainer import RLPromptTrainer

LEARNING = {"learning_rate": 3e-3, "loss": "path", "value_baseline": "uniform"}
RANDOM = {"learning_rate": 0.0}  # Q-values stay near 0: every allowed token is as likely as any other


def rewards(folder: Path, **options: Any) -> list[float]:
    """Training reward of every prompt that a search of 20 steps scored, in order."""
    tokenizer, verbalizer = load_tokenizer(), TASKS["sentiment"]
    rows = sorted(load_data("sentiment")["train"].to_list(), key=lambda row: (len(row["sentence"]), row["sentence"]))
    few = [row for label in (0, 1) for row in [row for row in rows if row["label"] == label][:4]]
    config = InterpPromptConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=5,
        tokenizer_name_or_path=tokenizer.name_or_path,
        allowed_tokens="words",
        banned_words=list(verbalizer.label_words),
    )
    quiet = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "use_cpu": True, "top_k": 0}
    args = RLPromptConfig(output_dir=str(folder), max_steps=20, dataloader_pin_memory=False, **quiet, **options)
    model = get_peft_model(load_model(), config)
    trainer = RLPromptTrainer(model, args, few, processing_class=tokenizer, verbalizer=verbalizer)
    trainer.train()
    return [record.scores["gap"] or 0.0 for record in trainer.search.archive.records]


def test_a_search_beats_as_many_random_prompts(tmp_path: Path) -> None:
    learned, drawn = rewards(tmp_path / "learned", **LEARNING), rewards(tmp_path / "drawn", **RANDOM)
    assert len(learned) <= len(drawn)
    assert max(learned) > max(drawn)
    late = slice(-160, None)  # the last ten steps
    assert sum(learned[late]) / 160 > sum(drawn[late]) / 160 + 10, "the policy has learned, not only the best of many"
    assert sum(drawn[late]) / 160 == pytest.approx(sum(drawn[:160]) / 160, abs=10), "and nothing else has changed"
