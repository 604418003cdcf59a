"""A soft prompt that turns the labels around: no text that acts against it is shown as its explanation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from peft_interp import PromptExplanation, compare_activations, embedded, explain_prompt

Build = Callable[..., Any]
TASK = embedded.TASKS["sentiment"]
QUESTION = "Is this film review positive or negative?"


@pytest.fixture(scope="module")
def found(turned: Any, tokenizer: Any, rows: Any) -> PromptExplanation:
    """From sources that find texts which people write, all of them in line with the labels."""
    return explain_prompt(turned, tokenizer, rows, TASK, sources=["nearest", "hand-written"], budget=200)


def test_no_text_is_shown_that_acts_against_it(found: PromptExplanation) -> None:
    assert found.text is None
    assert found.reason in ("against", "too far", "apart", "uncalibrated")
    assert found.conclusion().startswith("No text explains this prompt: ")
    assert any(one.acts_against for one in found.candidates)
    for shown in (found.to_text(160), found.to_markdown(), found.to_html()):
        assert "No text explains this prompt" in shown
        assert "acts against the prompt" in shown


def test_it_parts_from_the_text_inside_the_model(turned: Any, tokenizer: Any, rows: Any) -> None:
    view = compare_activations(turned, tokenizer, rows, QUESTION)
    assert view.parts_at is not None
    assert 1 <= view.parts_at <= 4
    assert f"part in layer {view.parts_at} of 4" in view.words()
