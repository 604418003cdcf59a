"""The fluent prompt search of this package: a whole front in one run."""

from __future__ import annotations

from typing import Any

from reward_search import run_search
from study_bench import Bench
from study_found import Found

from peft_interp import PromptSearchConfig, PromptSearchTrainer


def search(bench: Bench, eval_every: int = 10, **settings: Any) -> Found:
    """One run of `PromptSearchTrainer` within the study's budget; its prompts may hold punctuation, as sentences do.

    Args:
        bench: what to work with.
        eval_every: steps between two evaluations.
        settings: of `PromptSearchConfig`; `length` is the longest prompt, where it is not the study's.
    """
    length = settings.pop("length", bench.length)
    return run_search(
        bench, PromptSearchTrainer, PromptSearchConfig, length, eval_every, True, settings, allowed_tokens="ascii"
    )
