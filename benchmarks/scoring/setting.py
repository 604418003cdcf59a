"""What is scored: random prompts on random examples under a randomly initialised GPT-2."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from benchmarks.random_gpt2 import ModelSize, random_gpt2
from benchmarks.timing import now
from peft_interp.scoring.task_scorer import TaskScorer

POSITIONS = ("end", "start")
LABEL_WORDS = (10, 20)


@dataclass(frozen=True)
class Setting(ModelSize):
    """Sizes; the defaults are RLPrompt's step."""

    prompts: int = 16
    prompt: int = 5
    examples: int = 32
    text: int = 30
    policy_hidden: int = 2048


def language_model(setting: Setting) -> GPT2LMHeadModel:
    """The same weights at every call; evaluation mode."""
    return random_gpt2(setting).eval().to(setting.device)


def random_texts(setting: Setting) -> Tensor:
    """(examples, text) without padding."""
    generator = torch.Generator().manual_seed(1)
    shape = (setting.examples, setting.text)
    return torch.randint(0, setting.vocabulary - 1, shape, generator=generator).to(setting.device)


def gold_labels(setting: Setting) -> Tensor:
    """(examples,) 0, 1, 0, 1, ..."""
    return torch.arange(setting.examples, device=setting.device) % len(LABEL_WORDS)


def random_prompts(setting: Setting, seed: int) -> Tensor:
    """(prompts, prompt); other ones for every seed, so that nothing can be looked up."""
    generator = torch.Generator().manual_seed(seed)
    shape = (setting.prompts, setting.prompt)
    return torch.randint(0, setting.vocabulary - 1, shape, generator=generator).to(setting.device)


def encoded_rows(texts: Tensor, gold: Tensor) -> list[dict[str, list[int]]]:
    """Each text with its label's word after it, as `Verbalizer.encode` gives it."""
    rows = []
    for text, label in zip(texts.tolist(), gold.tolist(), strict=True):
        word = LABEL_WORDS[label]
        rows.append({"input_ids": [*text, word], "labels": [-100] * len(text) + [word]})
    return rows


def task_scorer(setting: Setting, model: Any, position: str, share: bool | None = None) -> TaskScorer:
    """Ours, on the setting's examples."""
    rows: Sequence[dict[str, list[int]]] = encoded_rows(random_texts(setting), gold_labels(setting))
    return TaskScorer(model, rows, LABEL_WORDS, position, share=share)


def timed(setting: Setting, score: Callable[[Tensor], Tensor]) -> Callable[[], tuple[float]]:
    """Seconds of scoring prompts, other ones in every call."""
    seeds = iter(range(1, 10**9))

    def run() -> tuple[float]:
        prompts = random_prompts(setting, next(seeds))
        begin = now(setting.device)
        score(prompts)
        return (now(setting.device) - begin,)

    return run
