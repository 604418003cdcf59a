"""Stock soft prompts whose nearest tokens do not explain them, trained on the embedded model: the numbers say so."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model

from peft_interp import embedded
from peft_interp.metrics.faithfulness import measure_faithfulness
from peft_interp.metrics.reading import read_prompt

QUICK = {"token_effects": False, "progress": False}


def trained(rows: Any, text: str, learning_rate: float, steps: int = 60) -> Any:
    """A stock soft prompt that starts at `text`, trained with Adam on short rows."""
    rows = [row for row in rows if len(row["input_ids"]) <= 22]
    start = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": text, "num_virtual_tokens": 8}
    config = PromptTuningConfig(task_type="CAUSAL_LM", tokenizer_name_or_path=embedded.MODEL_PATH, **start)
    model = get_peft_model(embedded.load_model(), config)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    draw = random.Random(0)
    for _ in range(steps):
        batch = draw.sample(rows, 16)
        width = max(len(row["input_ids"]) for row in batch)
        pads = [width - len(row["input_ids"]) for row in batch]
        model(
            input_ids=torch.tensor([row["input_ids"] + [1] * n for row, n in zip(batch, pads, strict=True)]),
            attention_mask=torch.tensor([[1] * (width - n) + [0] * n for n in pads]),
            labels=torch.tensor([row["labels"] + [-100] * n for row, n in zip(batch, pads, strict=True)]),
        ).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def flipped(rows: Any, answers: list[int]) -> Any:
    other = dict(zip(answers, answers[::-1], strict=True))
    return [
        {
            **row,
            "input_ids": [*row["input_ids"][:-1], other[row["input_ids"][-1]]],
            "labels": [*row["labels"][:-1], other[row["labels"][-1]]],
        }
        for row in rows
    ]


def test_a_soft_prompt_trained_hard_is_not_its_text(english: Any, sentiment: Any, answers: list[int]) -> None:
    """It reads as cooking and solves the task; its text does not."""
    model = trained(sentiment["train"], "This is about cooking pasta at home.", learning_rate=0.02)
    assert "cooking pasta" in read_prompt(model, english).text
    found = measure_faithfulness(model, english, sentiment["test"][:100], answers, **QUICK)
    assert found.as_prompt.accuracy > 0.7
    assert found.accuracy_difference > 0.1
    assert found.loss_difference > 0.1
    assert found.kl > 0.1
    assert found.logit_mse > 0.3
    assert found.cosine_distance > 0.2
    assert found.top1_agreement < 0.75


def test_a_prompt_trained_on_flipped_labels_is_called_out(english: Any, sentiment: Any, answers: list[int]) -> None:
    """Its text is harmless and works; the prompt answers the opposite."""
    harmless = "Is this film review positive or negative?"
    model = trained(flipped(sentiment["train"], answers), harmless, learning_rate=0.01)
    assert read_prompt(model, english).text == harmless
    found = measure_faithfulness(model, english, sentiment["test"][:100], answers, **QUICK)
    assert found.as_text.accuracy > 0.7
    assert found.as_prompt.accuracy < 0.4
    assert found.accuracy_difference < -0.3
    assert found.loss_difference > 0.1
    assert found.top1_agreement < 0.5


@pytest.mark.parametrize("text", [" of of of of", " this this this this"])
def test_a_text_that_does_nothing_shows_beside_no_prompt_at_all(
    readable: Any, english: Any, sentiment: Any, answers: list[int], text: str
) -> None:
    """Perfectly faithful, and no better than nothing."""
    ids = english.encode(text, add_special_tokens=False)
    model = readable(embedded.load_model(), num_virtual_tokens=len(ids))
    model.use_prompt(ids)
    found = measure_faithfulness(model, english, sentiment["test"][:100], answers, **QUICK)
    assert found.kl <= 1e-5
    assert found.without is not None
    assert abs(found.as_prompt.accuracy - found.without.accuracy) < 0.1
