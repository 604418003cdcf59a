"""Both sides run in the model's own precision, also on a model that Trainer has trained under autocast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from peft_interp.inference.eval_mode import eval_mode, own_precision
from peft_interp.metrics.faithfulness import measure_faithfulness

Build = Callable[..., Any]
QUICK = {"progress": False, "token_effects": False, "without": False}


@pytest.fixture
def trained(gpt2: Build, readable: Build, word_rows: Build, make_trainer: Build) -> Any:
    """A prompt of tokens after `Trainer(bf16=True)`, which leaves its autocast in the model's `forward`."""
    model = readable(gpt2())
    rows = [{**row, "input_ids": row["input_ids"][:3], "labels": row["labels"][:3]} for row in word_rows(count=8)]
    rows = [{**row, "labels": row["input_ids"]} for row in rows]
    for _ in range(2):  # the second run wraps the first one's wrapper
        make_trainer(model, rows, bf16=True, learning_rate=0.0).train()
    assert "forward" in model.__dict__
    return model


@torch.no_grad()
def test_a_perfect_prompt_stays_perfect_after_training_in_bf16(trained: Any, words: Any, word_rows: Build) -> None:
    trained.eval()
    ids = torch.tensor([[7, 8, 9]])
    cast, before = trained(input_ids=ids).logits, dict(trained.__dict__)
    found = measure_faithfulness(trained, words, word_rows(), **QUICK)
    assert max(found.logit_mse, found.kl, found.loss_difference) <= 1e-10
    assert trained.__dict__ == before  # the trainer's own wrapper is back
    assert torch.equal(trained(input_ids=ids).logits, cast)
    del trained.__dict__["forward"]
    plain = trained(input_ids=ids).logits
    assert not torch.equal(plain, cast)
    assert measure_faithfulness(trained, words, word_rows(), **QUICK) == found


@torch.no_grad()
def test_the_callers_autocast_is_off_as_well(trained: Any) -> None:
    ids = torch.tensor([[7, 8, 9]])
    trained.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with eval_mode(trained):
            inside = trained(input_ids=ids).logits
        assert torch.is_autocast_enabled("cpu")
    del trained.__dict__["forward"]
    assert torch.equal(inside, trained(input_ids=ids).logits)


def test_the_wrapper_comes_back_after_an_error(trained: Any) -> None:
    forward = trained.__dict__["forward"]
    with pytest.raises(ValueError, match="exactly one of"), own_precision(trained):
        trained(input_ids=None)
    assert trained.__dict__["forward"] is forward


def test_other_wrappers_stay(gpt2: Build) -> None:
    """Accelerate's device hooks replace `forward` too, and are needed."""
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    base = add_hook_to_module(gpt2(), AlignDevicesHook(io_same_device=True))
    hooked = base.__dict__["forward"]
    with own_precision(base):
        assert base.__dict__["forward"] is hooked
