"""What perplexity lets through does not get into the population."""

from __future__ import annotations

from typing import Any

import pytest

from peft_interp.search.constraints import readable


@pytest.mark.parametrize(
    ("text", "kept", "kept_by_the_dictionary"),
    [
        ("I want you to act as a film judge.", True, True),
        ("g want you to act as a film judge.", True, False),  # the first token's NLL is not counted
        ("Comed: write a short story about it.", True, False),
        ("film film film film film", False, False),
        (". . . . . .", False, False),
        ("Schreibe einen kurzen Text über das Wetter in der Stadt.", True, True),  # no English dictionary has its words
    ],
)
def test_readable(text: str, kept: bool, kept_by_the_dictionary: bool, tokenizer: Any) -> None:
    ids = tokenizer.encode(text)
    assert readable(text, ids, tokenizer) == kept
    assert readable(text, ids, tokenizer, known_words=True) == kept_by_the_dictionary
