"""RLPrompt (arXiv 2205.12548), and RLPrompt with the prompt's perplexity in the reward."""

from __future__ import annotations

from typing import Any

from reward_search import run_search
from study_bench import Bench
from study_found import Found

from peft_interp import RLPromptConfig, RLPromptTrainer


def rlprompt(
    bench: Bench, weight: float = 0.0, examples_per_step: int = 16, eval_every: int = 10, **settings: Any
) -> Found:
    """Soft Q-learning until the budget is used.

    Args:
        bench: what to work with.
        weight: of log-perplexity in the reward, 0 to 1.
        examples_per_step: rows on which a step's prompts are scored; 0 for all.
        eval_every: steps between two evaluations.
        settings: of `RLPromptConfig`; `length` is the prompt's, where it is not the study's.
    """
    length = settings.pop("length", bench.length)
    if 0 < examples_per_step < len(bench.data.rows["train"]):
        settings["examples_per_step"] = examples_per_step
    settings["perplexity_reward_weight"] = weight
    return run_search(bench, RLPromptTrainer, RLPromptConfig, length, eval_every, False, settings)
