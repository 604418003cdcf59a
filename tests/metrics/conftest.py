"""Prompts on the tiny models of `tests/conftest.py` and on the embedded model, and labelled rows for both."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from transformers import AutoTokenizer

from peft_interp import embedded

Build: TypeAlias = Callable[..., Any]
Rows: TypeAlias = list[dict[str, Any]]


@pytest.fixture
def words(tokenizer_dir: Path) -> Any:
    """A word tokenizer that puts `<s>` first; word `w7` has id 7."""
    return AutoTokenizer.from_pretrained(tokenizer_dir)


@pytest.fixture
def readable(readable: Build) -> Build:
    """`readable(model, task_type="CAUSAL_LM", **config)`: our adapter, 4 tokens, which knows the leading `<s>`."""
    return partial(readable, leading_token_ids=[1])


@pytest.fixture
def word_rows(token_ids: Build) -> Build:
    """`word_rows(bos="no", count=6)`: rows of 3 to 8 words, the last two labelled; BOS in "no", "all" or "some"."""

    def build(bos: str = "no", count: int = 6) -> Rows:
        rows = []
        for i, words in enumerate(token_ids(count, 8).tolist()):
            lead = {"no": 0, "all": 1, "some": i % 2}[bos]
            ids = [1] * lead + words[: 3 + i % 6]
            rows.append({"input_ids": ids, "labels": [-100] * (len(ids) - 2) + ids[-2:]})
        return rows

    return build


@pytest.fixture(scope="session")
def english() -> Any:
    """The embedded tokenizer."""
    return embedded.load_tokenizer()


@pytest.fixture(scope="session")
def sentiment(english: Any) -> dict[str, Rows]:
    """The embedded sentiment data, encoded: "train" and "test"."""
    verbalizer, data = embedded.TASKS["sentiment"], embedded.load_data("sentiment")
    return {
        split: [verbalizer.encode(english, row["sentence"], row["label"]) for row in data[split]]
        for split in ("train", "test")
    }


@pytest.fixture(scope="session")
def answers(english: Any) -> list[int]:
    """Ids of " terrible" and " great"."""
    return embedded.TASKS["sentiment"].label_token_ids(english)
