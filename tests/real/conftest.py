"""SmolLM2 in both precisions, a few short reviews, and adapters on it; skipped where its wheel is not installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from peft import get_peft_model

from peft_interp import InterpPromptConfig, embedded

Build: TypeAlias = Callable[..., Any]
TEXT = " Is this film review positive or negative?"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = pytest.mark.skip(reason="SmolLM2 is not installed; `make real-models` does it (docs/real-models.md)")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.real)
            if not embedded.has_smollm2():
                item.add_marker(missing)


@pytest.fixture(scope="session", params=list(DTYPES))
def base(request: pytest.FixtureRequest) -> Any:
    """One after the other, each loaded once for all tests; adapters leave it as it is."""
    return embedded.load_model("smollm2", dtype=DTYPES[request.param])


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return embedded.load_tokenizer("smollm2")


@pytest.fixture(scope="session")
def reviews() -> list[dict[str, Any]]:
    """Eight short ones, labels in turn."""
    rows = sorted(embedded.load_data("sentiment")["train"], key=lambda row: len(row["sentence"]))
    by_label = [[row for row in rows if row["label"] == label][:4] for label in (0, 1)]
    return [row for pair in zip(*by_label, strict=True) for row in pair]


@pytest.fixture
def adapter(base: Any) -> Build:
    """`adapter(**config)`: of six words, the same at every call."""

    def build(**config: Any) -> Any:
        settings = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 6, "allowed_tokens": "words"}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            names = {"tokenizer_name_or_path": "smollm2"}
            return get_peft_model(base, InterpPromptConfig(**{**settings, **names, **config}))

    return build


@pytest.fixture
def worded(adapter: Build) -> Any:
    """An adapter that says `TEXT`."""
    text = {"num_virtual_tokens": None, "prompt_tuning_init": "TEXT", "prompt_tuning_init_text": TEXT}
    return adapter(allowed_tokens="printable", **text)
