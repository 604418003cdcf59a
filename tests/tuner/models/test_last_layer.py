"""The last layer's feed-forward part runs where the head reads: the same step, on fewer positions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import MixtralConfig, MixtralForCausalLM

from peft_interp.tuner.last_layer import FeedForward, last_feed_forward, only_at
from tests.builders import VOCAB_SIZE, checkpointing

Build = Callable[..., Any]
PROMPT, COLUMNS, ROWS = 4, 12, 3


def answers(token_ids: Build, column: int = COLUMNS - 1) -> dict[str, Tensor]:
    """Rows without padding, with one label each."""
    ids = token_ids(ROWS, COLUMNS)
    labels = torch.full_like(ids, -100)
    labels[:, column] = ids[:, column]
    return {"input_ids": ids, "labels": labels}


def seen_positions(model: Any, **inputs: Any) -> int:
    """How many positions the last layer's feed-forward part works on in a step."""
    seen: list[int] = []
    feed_forward = last_feed_forward(model.get_base_model())
    assert feed_forward is not None
    first = next(child for child in feed_forward.module.children())
    handle = first.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[:-1].numel()))
    try:
        model.train()
        model(**inputs).loss.backward()
    finally:
        handle.remove()
    return seen[-1]


def gradient(model: Any, share: bool | str, **inputs: Any) -> tuple[Tensor, Tensor]:
    model.active_peft_config.share_prefix = share
    latent = model.prompt_encoder["default"].latent
    latent.grad = None
    model.train()
    loss = model(**inputs).loss
    loss.backward()
    return loss.detach(), latent.grad.clone()


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2"])
@pytest.mark.parametrize("column", [0, 5, COLUMNS - 1])
def test_positions_and_gradient(causal: Build, readable: Build, token_ids: Build, name: str, column: int) -> None:
    """With the term, the prompt's own positions and one per row; in column 0 all rows share the prompt's last one."""
    model = readable(causal(name), perplexity_weight=0.5)
    given = answers(token_ids, column)
    assert seen_positions(model, **given) == PROMPT + ROWS
    (loss, found), (expected, reference) = (gradient(model, share, **given) for share in ("auto", False))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-7)
    assert reference.norm() > 1e-4
    assert (found - reference).norm() <= 1e-5 * reference.norm()


def test_labels_everywhere_change_nothing(causal: Build, readable: Build, token_ids: Build) -> None:
    ids = token_ids(ROWS, COLUMNS)
    assert seen_positions(readable(causal("llama")), input_ids=ids, labels=ids) == PROMPT + ROWS * COLUMNS


def test_recomputed_layers_are_left_alone(causal: Build, readable: Build, token_ids: Build) -> None:
    """What gradient checkpointing runs again in the backward pass would not see the hooks."""
    model = readable(causal("llama"))
    checkpointing(model, use_reentrant=False)
    assert seen_positions(model, **answers(token_ids)) == ROWS * (PROMPT + COLUMNS)


def test_experts_are_tried(readable: Build, token_ids: Build) -> None:
    """A layer of experts is no `mlp` that works on single positions alone, or it is one and gives the same step."""
    config = MixtralConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=2,
        sliding_window=None,
    )
    model = readable(MixtralForCausalLM(config).eval())
    given = answers(token_ids)
    (loss, found), (expected, reference) = (gradient(model, share, **given) for share in ("auto", False))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-7)
    assert (found - reference).norm() <= 1e-5 * reference.norm()


def test_without_a_known_name_nothing_is_cut(causal: Build) -> None:
    assert last_feed_forward(causal("opt")) is None


def test_other_threads_see_the_whole_module() -> None:
    """A model may serve another thread while a step is being made."""
    module, states, found = nn.Linear(4, 4), torch.randn(1, 6, 4), []
    with only_at(FeedForward(module, (module,)), torch.tensor([5]), 6):
        thread = threading.Thread(target=lambda: found.append(module(states)))
        thread.start()
        thread.join()
        here = module(states)
    torch.testing.assert_close(found[0], module(states))
    torch.testing.assert_close(here[0, 5], found[0][0, 5])
    torch.testing.assert_close(here[0, 0], found[0][0, 5])  # not computed, and nobody reads it


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_compiled_layers_are_left_alone(causal: Build, readable: Build, token_ids: Build) -> None:
    """A compiled layer would go on without hooks that it has once seen, or with them."""
    model = readable(causal("llama"))
    given = answers(token_ids)
    expected, reference = gradient(model, "auto", **given)
    for layer in model.get_base_model().model.layers:
        layer.compile(backend="eager")
    for column in (COLUMNS - 1, 5, COLUMNS - 1):
        loss, found = gradient(model, "auto", **answers(token_ids, column))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found, reference)
    feed_forward = last_feed_forward(model.get_base_model())
    assert feed_forward is not None
    assert feed_forward.is_compiled
