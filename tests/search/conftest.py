"""A search on the embedded model, which knows words; the tiny models of other tests have none people could read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from peft import get_peft_model

from peft_interp import InterpPromptConfig, PromptSearchConfig, PromptSearchTrainer, embedded

Build: TypeAlias = Callable[..., Any]


@pytest.fixture(scope="session")
def language_model() -> Any:
    return embedded.load_model()


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return embedded.load_tokenizer()


@pytest.fixture(scope="session")
def reviews() -> list[dict[str, Any]]:
    rows = list(embedded.load_data("sentiment")["train"])
    short = sorted(rows, key=lambda row: len(row["sentence"]))
    return [row for label in (0, 1) for row in [r for r in short if r["label"] == label][:8]]


def adapted(language_model: Any, **config: Any) -> Any:
    """An adapter of six tokens, the same at every call."""
    settings = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 6, "allowed_tokens": "printable"}
    files = {"tokenizer_name_or_path": embedded.MODEL_PATH}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return get_peft_model(language_model, InterpPromptConfig(**{**settings, **files, **config}))


@pytest.fixture
def adapter(language_model: Any) -> Build:
    """`adapter(**config)`: of six tokens, the same at every call."""
    return partial(adapted, language_model)


@pytest.fixture(scope="session")
def searcher_in(language_model: Any, reviews: list[dict[str, Any]], tokenizer: Any) -> Build:
    """`searcher_in(folder, model=None, options=None, **arguments)`: a trainer of three quick steps."""

    def build(
        folder: Path, model: Any = None, options: dict[str, Any] | None = None, **arguments: Any
    ) -> PromptSearchTrainer:
        quiet = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "output_dir": str(folder)}
        size = {"max_steps": 3, "prompts_per_step": 8, "human_starts": 6, "proposals_per_prompt": 4}
        few = {"population_size": 8, "screening_examples": None, "eval_candidates": 4}
        machine = {"use_cpu": True, "dataloader_pin_memory": False}
        args = PromptSearchConfig(**{**quiet, **size, **few, **machine, **arguments})
        parts = {"train_dataset": reviews[::2], "eval_dataset": reviews[1::2], "processing_class": tokenizer}
        parts |= {"verbalizer": embedded.TASKS["sentiment"]}
        model = adapted(language_model) if model is None else model
        return PromptSearchTrainer(model, args, **{**parts, **(options or {})})

    return build


@pytest.fixture
def searcher(searcher_in: Build, tmp_path: Path) -> Build:
    """`searcher(model=None, options=None, **arguments)`: `searcher_in` a folder of this test."""
    return partial(searcher_in, tmp_path / "run")


@pytest.fixture
def resumed(tmp_path: Path) -> Build:
    """From a function that makes a searching trainer: one that ran four steps, and one that took over after two."""

    def pair(make: Build, **settings: Any) -> tuple[Any, Any]:
        run = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
        straight = make(**run, **settings, output_dir=str(tmp_path / "straight"))
        straight.train()
        second = make(**run, **settings, output_dir=str(tmp_path / "resumed"))
        torch.manual_seed(99)
        second.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-2"))
        return straight, second

    return pair
