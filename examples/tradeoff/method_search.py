"""The fluent prompt search of this package: a whole front in one run."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from reward_search import run_search
from study_bench import Bench
from study_found import Found


def search(bench: Bench, eval_every: int = 5, **settings: Any) -> Found:
    """One run of `PromptSearchTrainer` within the study's budget.

    Args:
        bench: what to work with.
        eval_every: steps between two evaluations.
        settings: of `PromptSearchConfig`; `length` is the longest prompt, where it is not the study's.
    """
    package: Any = import_module("peft_interp")
    length = settings.pop("length", bench.length)
    return run_search(bench, package.PromptSearchTrainer, package.PromptSearchConfig, length, eval_every, settings)
