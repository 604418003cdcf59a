"""Readable prompts on the tiny models of `tests/conftest.py`, data for every task, and Trainer settings that learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from peft import PeftModel
from transformers import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2ForSequenceClassification,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)

Build: TypeAlias = Callable[..., Any]
Rows: TypeAlias = list[dict[str, Any]]

VOCAB_SIZE = 64
TOY_WORDS = 40  # tokens 3 to 42; word k is followed by word k + 1 or k + 2


@pytest.fixture
def latent_of() -> Build:
    """`latent_of(model)`: a copy of the continuous prompt."""
    return lambda model: model.prompt_encoder["default"].latent.detach().clone()


@pytest.fixture
def base_for(gpt2: Build, llama: Build, t5: Build, bert: Build) -> Build:
    """`base_for(task)`: a fresh base model; the same weights at every call."""
    builders: dict[str, Callable[[], PreTrainedModel]] = {
        "CAUSAL_LM": gpt2,
        "CAUSAL_LM/llama": llama,
        "SEQ_2_SEQ_LM": t5,
        "SEQ_CLS": lambda: bert(BertForSequenceClassification, num_labels=2),
        "SEQ_CLS/gpt2": lambda: gpt2(GPT2ForSequenceClassification, num_labels=2),
        "TOKEN_CLS": lambda: bert(BertForTokenClassification, num_labels=3),
        "QUESTION_ANS": lambda: bert(BertForQuestionAnswering),
    }
    return lambda task: builders[task]()


@pytest.fixture
def rows_for(token_ids: Build) -> Build:
    """`rows_for(task, count=8)`: labelled rows; language models predict the last two tokens of six."""

    def build(task: str, count: int = 8) -> Rows:
        ids = token_ids(count, 6)
        answers = ids.clone()
        answers[:, :4] = -100
        columns: dict[str, Callable[[int], dict[str, Any]]] = {
            "CAUSAL_LM": lambda i: {"labels": answers[i]},
            "SEQ_2_SEQ_LM": lambda i: {"labels": ids[i, :3]},
            "SEQ_CLS": lambda i: {"labels": int(ids[i, 0]) % 2},
            "TOKEN_CLS": lambda i: {"labels": ids[i] % 3},
            "QUESTION_ANS": lambda i: {"start_positions": i % 5, "end_positions": i % 5 + 1},
        }
        return [{"input_ids": ids[i], **columns[task.partition("/")[0]](i)} for i in range(count)]

    return build


@pytest.fixture
def learner(tmp_path: Path) -> Build:
    """`learner(model, rows, trainer_options=None, **arguments)`: AdamW at 0.1, the whole data in every step."""

    def build(model: PeftModel, rows: Rows, trainer_options: dict[str, Any] | None = None, **arguments: Any) -> Trainer:
        quiet = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "output_dir": str(tmp_path / "run")}
        plain = {"learning_rate": 0.1, "lr_scheduler_type": "constant", "max_steps": 5, "logging_steps": 1}
        machine = {"use_cpu": True, "dataloader_pin_memory": False}
        batch = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 8}
        args = TrainingArguments(**{**quiet, **plain, **machine, **batch, **arguments})
        return Trainer(model=model, args=args, train_dataset=rows, **(trainer_options or {}))

    return build


def toy_sentences(count: int, length: int) -> torch.Tensor:
    """Walks around the circle of toy words in steps of one or two: every next token is one of two."""
    generator = torch.Generator().manual_seed(7)
    steps = torch.randint(1, 3, (count, length), generator=generator)
    start = torch.randint(0, TOY_WORDS, (count, 1), generator=generator)
    return (start + steps.cumsum(dim=1)) % TOY_WORDS + 3


@pytest.fixture(scope="session")
def toy_weights() -> dict[str, torch.Tensor]:
    """Filled by the first test that asks for `toy_lm`."""
    return {}


@pytest.fixture
def toy_lm(gpt2: Build, toy_weights: dict[str, torch.Tensor]) -> Build:
    """`toy_lm()`: GPT-2 that has learned the toy language, so that a prompt's NLL means something."""

    def build() -> PreTrainedModel:
        model = gpt2(initializer_range=0.02)
        if not toy_weights:
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
            for batch in toy_sentences(32 * 120, 12).split(32):
                loss = model(input_ids=batch, labels=batch).loss
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            assert loss.item() < 1.1  # ln 2 per step, more for the first ones; untrained it is ln 64 = 4.2
            toy_weights.update({name: weight.clone() for name, weight in model.state_dict().items()})
        model.load_state_dict(toy_weights)
        return model.eval()

    return build
