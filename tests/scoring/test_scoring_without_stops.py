"""Scoring prompts gives the device all its work without waiting for a number from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from peft_interp.scoring.task_scorer import TaskScorer
from tests.no_stops import NoStops

Build = Callable[..., Any]


@pytest.mark.parametrize("share", [None, False])
@pytest.mark.parametrize("position", ["start", "end"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_no_pass_waits(
    language_model: Build, examples: Build, prompts: list[list[int]], name: str, position: str, share: bool | None
) -> None:
    model, refused = language_model(name), NoStops()
    scorer = TaskScorer(model, examples("some"), [5, 9], position, [1], share=share, tokens_per_batch=50)
    # what the model's own code asks for (has the mask any padding?) is the same in every pass of it, ours or not
    handles = [
        model.register_forward_pre_hook(lambda *_: refused.__exit__(None, None, None)),
        model.register_forward_hook(lambda *_: refused.__enter__() and None),
    ]
    with refused:
        scorer.label_log_probs(prompts)
        scorer.losses(prompts)
    for handle in handles:
        handle.remove()
