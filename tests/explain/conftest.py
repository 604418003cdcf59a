"""Prompts on the embedded model: planted texts as vectors, and a soft prompt that turns the labels around."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeAlias

import pytest
import torch
from datasets import disable_progress_bars, enable_progress_bars
from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model

from peft_interp import InterpPromptConfig, embedded
from peft_interp.explain.inversion import divergence
from peft_interp.explain.target import Target, compared, make_target
from peft_interp.inference.eval_mode import eval_mode

Build: TypeAlias = Callable[..., Any]
TASK = embedded.TASKS["sentiment"]
PLANTED = "What do people think of this movie?"


@pytest.fixture(autouse=True)
def no_bars() -> Iterator[None]:
    disable_progress_bars()
    yield
    enable_progress_bars()


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return embedded.load_tokenizer()


@pytest.fixture(scope="session")
def rows(tokenizer: Any) -> list[dict[str, Any]]:
    """24 short labelled rows."""
    data = embedded.load_data("sentiment")["train"]
    short = sorted(data, key=lambda row: len(row["sentence"]))[:24]
    return [TASK.encode(tokenizer, row["sentence"], row["label"]) for row in short]


@pytest.fixture(scope="session")
def planted(tokenizer: Any) -> Build:
    """`planted(text, noise=0.0, kind="stock")`: vectors that are the rows of a text's tokens, with some noise."""

    def build(text: str = PLANTED, noise: float = 0.0, kind: str = "stock") -> Any:
        ids = tokenizer.encode(text, add_special_tokens=False)
        common: dict[str, Any] = {"task_type": "CAUSAL_LM", "num_virtual_tokens": len(ids)}
        init = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": text}
        init["tokenizer_name_or_path"] = embedded.MODEL_PATH
        configs: dict[str, Any] = {
            "stock": lambda: PromptTuningConfig(**common, **init),
            "ours": lambda: InterpPromptConfig(**common, **init),
            "encoder": lambda: PromptEncoderConfig(**common, encoder_hidden_size=32),
            "prefix": lambda: PrefixTuningConfig(**common),
        }
        model: Any = get_peft_model(embedded.load_model(), configs[kind]())
        if noise:
            weight = model.prompt_encoder["default"].embedding.weight
            generator = torch.Generator().manual_seed(1)
            weight.data += noise * weight.data.std() * torch.randn(weight.shape, generator=generator)
        return model

    return build


@pytest.fixture(scope="session")
def target_of(tokenizer: Any, rows: list[dict[str, Any]]) -> Build:
    """`target_of(model, count)`: what the model's prompt does on the first rows."""

    def build(model: Any, count: int = 8) -> Target:
        with eval_mode(model):
            labels = TASK.label_token_ids(tokenizer)
            return make_target(compared(model, tokenizer, rows, labels, 32), range(count), 16)

    return build


@pytest.fixture(scope="session")
def turned(planted: Build, target_of: Build, tokenizer: Any, rows: list[dict[str, Any]]) -> Any:
    """A soft prompt trained to say "great" of bad reviews and "terrible" of good ones."""
    model = planted()
    target = target_of(model, 16)
    words = torch.tensor(TASK.label_token_ids(tokenizer))
    gold = torch.tensor([row.labels[row.first] for row in target.rows])
    wrong = words[1 - torch.tensor([words.tolist().index(int(label)) for label in gold])]
    certain = torch.full_like(target.prompt, -40.0)
    certain[torch.arange(len(wrong)), wrong] = 0.0
    target = replace(target, prompt=certain)  # KL to it is the cross-entropy of the wrong words
    vectors = model.prompt_encoder["default"].embedding.weight.detach().clone().requires_grad_(True)
    optimizer = torch.optim.Adam([vectors], lr=0.05)
    with eval_mode(model):
        for _ in range(30):
            with torch.enable_grad():
                (vectors.grad,) = torch.autograd.grad(divergence(target, vectors), vectors)
            optimizer.step()
    model.prompt_encoder["default"].embedding.weight.data = vectors.detach()
    return model
