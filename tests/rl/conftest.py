"""A search on the tiny models: words `w3` to `w63`, inputs of three words, the answer one of two words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from peft import get_peft_model
from transformers import AutoTokenizer

from peft_interp import InterpPromptConfig, Verbalizer
from peft_interp.rl.config import RLPromptConfig
from peft_interp.rl.trainer import RLPromptTrainer

Build: TypeAlias = Callable[..., Any]
PROMPT_LENGTH = 3


@pytest.fixture
def tokenizer(tokenizer_dir: Path) -> Any:
    """The word tokenizer of `tests/conftest.py`."""
    return AutoTokenizer.from_pretrained(tokenizer_dir)


@pytest.fixture
def verbalizer() -> Verbalizer:
    """Two labels, `w5` and `w6`, after the input."""
    return Verbalizer("{prompt} {text} w4", ("w5", "w6"))


@pytest.fixture
def sentences() -> Build:
    """`sentences(count)`: rows of `sentence` and `label`, the same at every call."""

    def build(count: int = 6) -> list[dict[str, Any]]:
        ids = torch.randint(10, 60, (count, 3), generator=torch.Generator().manual_seed(3)).tolist()
        return [{"sentence": " ".join(f"w{i}" for i in row), "label": sum(row) % 2} for row in ids]

    return build


@pytest.fixture
def prompted(gpt2: Build, tokenizer_dir: Path) -> Build:
    """`prompted(base=None, **config)`: an adapter of three tokens, the same at every call."""

    def build(base: Any = None, **config: Any) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            settings = {"task_type": "CAUSAL_LM", "num_virtual_tokens": PROMPT_LENGTH}
            files = {"tokenizer_name_or_path": str(tokenizer_dir)}
            return get_peft_model(
                gpt2() if base is None else base, InterpPromptConfig(**{**settings, **files, **config})
            )

    return build


@pytest.fixture
def searcher(prompted: Build, sentences: Build, tokenizer: Any, verbalizer: Verbalizer, tmp_path: Path) -> Build:
    """`searcher(model=None, options=None, **arguments)`: a trainer that learns fast, with verbalizer and dev rows."""

    def build(model: Any = None, options: dict[str, Any] | None = None, **arguments: Any) -> RLPromptTrainer:
        quiet = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "output_dir": str(tmp_path / "run")}
        learning = {"learning_rate": 1e-2, "target_update_rate": 0.05, "policy_hidden_size": 64}
        size = {"max_steps": 4, "prompts_per_step": 6, "logging_steps": 1, "top_k": 0, "eval_candidates": 2}
        machine = {"use_cpu": True, "dataloader_pin_memory": False}
        rows = sentences(10)
        parts = {"train_dataset": rows[:6], "eval_dataset": rows[6:], "processing_class": tokenizer}
        args = RLPromptConfig(**{**quiet, **learning, **size, **machine, **arguments})
        adapter = prompted() if model is None else model
        return RLPromptTrainer(adapter, **{"args": args, **parts, "verbalizer": verbalizer, **(options or {})})

    return build
