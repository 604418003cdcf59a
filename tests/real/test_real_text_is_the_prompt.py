"""Promise 1 on SmolLM2: the adapter's logits are the base model's logits of the plain text, wherever the padding is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from peft_interp.text.tokenization import leading_token_ids

Build = Callable[..., Any]
TEXTS = [" A wonderful film. It was", " I slept through most of it, and so did everybody else. It was"]


def padded(tokenizer: Any, rows: list[list[int]], side: str) -> Any:
    return tokenizer.pad({"input_ids": rows}, padding_side=side, return_tensors="pt")


def same(ours: torch.Tensor, text: torch.Tensor) -> None:
    """Equal in fp32; in bf16, whose rounding differs from batch to batch, the same distribution."""
    if text.dtype == torch.float32:
        torch.testing.assert_close(ours, text, atol=2e-3, rtol=1e-3)
        return
    ours, text = ours.float().log_softmax(-1), text.float().log_softmax(-1)
    assert (text.exp() * (text - ours)).sum(-1).max() < 0.02  # nats


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_with_padding(base: Any, worded: Any, tokenizer: Any, side: str) -> None:
    prompt, rows = worded.prompt_token_ids(), [tokenizer.encode(text) for text in TEXTS]
    ours, text = padded(tokenizer, rows, side), padded(tokenizer, [[*prompt, *row] for row in rows], side)
    positions = (text["attention_mask"].cumsum(1) - 1).clamp_min(0)
    with torch.no_grad():
        expected = base(**text, position_ids=positions).logits[text["attention_mask"].bool()]
        found = worded.eval()(**ours).logits
    same(found[text["attention_mask"].bool()], expected)


def test_in_training_with_gradients(base: Any, worded: Any, tokenizer: Any) -> None:
    """The prompt run once for all rows gives the loss of the plain text."""
    prompt, rows = worded.prompt_token_ids(), [tokenizer.encode(text) for text in TEXTS]
    batch, text = padded(tokenizer, rows, "right"), padded(tokenizer, [[*prompt, *row] for row in rows], "right")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"].eq(0), -100)
    labels[:, 0] = -100
    full = torch.cat((labels.new_full((2, len(prompt)), -100), labels), dim=1)
    worded.train()
    loss = worded(**batch, labels=labels).loss
    loss.backward()
    with torch.no_grad():
        expected = base(**text, labels=full).loss
    torch.testing.assert_close(
        loss.detach().float(), expected.float(), atol=2e-3 if base.dtype == torch.float32 else 0.05, rtol=0
    )
    assert torch.isfinite(worded.prompt_encoder["default"].latent.grad).all()


def test_what_is_generated(base: Any, worded: Any, tokenizer: Any) -> None:
    prompt, rows = worded.prompt_token_ids(), [tokenizer.encode(text) for text in TEXTS]
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": tokenizer.pad_token_id}
    with torch.no_grad():
        ours = worded.eval().generate(**padded(tokenizer, rows, "left"), **options)
        text = base.generate(**padded(tokenizer, [[*prompt, *row] for row in rows], "left"), **options)
    assert torch.equal(ours[:, -4:], text[:, -4:])


def test_a_turn_of_a_chat_is_not_taken_apart(base: Any, worded: Any, tokenizer: Any) -> None:
    """BOS opens SmolLM2's turns: the prompt stands in front of it, not between it and the turn's name."""
    assert leading_token_ids(tokenizer, base.config) == []
    chat = [{"role": "user", "content": "Was the film good?"}]
    row = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert row[0] == tokenizer.bos_token_id
    prompt = worded.prompt_token_ids()
    with torch.no_grad():
        found = worded.eval()(input_ids=torch.tensor([row])).logits[:, len(prompt) :]
        expected = base(input_ids=torch.tensor([[*prompt, *row]])).logits[:, len(prompt) :]
    same(found, expected)
