"""A head that learns while the prompt stays where it began is said: in statistics, by a warning, in the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from peft_interp import PromptCallback, report_prompt

Build = Callable[..., Any]


def trained(make_trainer: Build, model: Any, token_ids: Build, rate: float) -> Any:
    ids = token_ids(16, 6)
    rows = [{"input_ids": row, "labels": int(row[0]) % 2} for row in ids]
    options = {"optim": "adamw_torch", "learning_rate": rate, "max_steps": 6, "per_device_train_batch_size": 16}
    make_trainer(model, rows, trainer_options={"callbacks": [PromptCallback()]}, **options).train()
    return rows


def test_a_prompt_that_stays_is_said(
    bert: Build, readable: Build, make_trainer: Build, token_ids: Build, tokenizer_dir: Path
) -> None:
    model = readable(bert(), "SEQ_CLS", stuck_patience=10**6)
    with pytest.warns(UserWarning, match="after 6 steps the prompt is the one training began with: only the head"):
        rows = trained(make_trainer, model, token_ids, 3e-3)
    assert model.prompt_statistics()["changed_since_start"] == 0
    latent = model.prompt_encoder["default"].latent.detach().clone()
    report = report_prompt(model, AutoTokenizer.from_pretrained(tokenizer_dir), rows, progress=False)
    (acts,) = [verdict for verdict in report.verdicts if verdict.question == "acts"]
    assert "with the same head and a random prompt it is" in acts.words
    assert acts.answer != "yes"
    assert 0 <= report.context["random_prompt_accuracy"] <= 1
    assert torch.equal(model.prompt_encoder["default"].latent, latent)


def test_a_prompt_that_moves_is_counted(bert: Build, readable: Build, make_trainer: Build, token_ids: Build) -> None:
    model = readable(bert(), "SEQ_CLS")
    trained(make_trainer, model, token_ids, 0.3)
    assert model.prompt_statistics()["changed_since_start"] > 0
