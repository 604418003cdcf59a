"""The embedded language model, loaded once, and prompts to judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from peft_interp import embedded
from peft_interp.metrics.flags import find_flags
from peft_interp.text.tokenization import token_texts


@pytest.fixture(scope="package")
def model() -> Any:
    return embedded.load_model()


@pytest.fixture(scope="package")
def tokenizer() -> Any:
    return embedded.load_tokenizer()


@pytest.fixture
def flags_of(tokenizer: Any) -> Callable[..., dict[str, Any]]:
    """`flags_of(text, **options)`: the flags found in a text, by name."""

    def find(text: str, **options: Any) -> dict[str, Any]:
        ids = tokenizer.encode(text, add_special_tokens=False)
        special = sum(i in tokenizer.all_special_ids for i in ids)
        return {flag.name: flag for flag in find_flags(text, token_texts(tokenizer, ids), special, **options)}

    return find
