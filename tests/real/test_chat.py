"""SmolLM2's chat: a prompt inside the system's or the user's turn is the text that a person would write there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from peft_interp import Verbalizer, classify, measure_faithfulness

Build = Callable[..., Any]
TEXTS = ["A wonderful film.", "I slept through most of it, and so did everybody else."]
WORDS = ("negative", "quite positive")
SAID = {"system": "You tell whether a film review is positive.", "user": " Is this review positive?"}
TEMPLATES = {"system": "{prompt} {text}", "user": "{text} {prompt}"}
roles = pytest.mark.parametrize("role", TEMPLATES)


@pytest.fixture
def task() -> Callable[[str], Verbalizer]:
    return lambda role: Verbalizer(TEMPLATES[role], WORDS, chat=role)


@pytest.fixture
def told(adapter: Build) -> Build:
    """An adapter that says `SAID` in a turn."""

    def build(role: str) -> Any:
        text = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": SAID[role], "num_virtual_tokens": None}
        return adapter(allowed_tokens="printable", prompt_position="template", **text)

    return build


def chat(tokenizer: Any, role: str, text: str) -> str:
    """Written by hand, with the tokenizer's own template."""
    messages = [{"role": "user", "content": text + SAID[role]}]
    if role == "system":
        messages = [{"role": "system", "content": SAID[role]}, {"role": "user", "content": text}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def close(ours: torch.Tensor, text: torch.Tensor) -> None:
    """The same in fp32 but for rounding; the same distribution in bf16, whose rounding differs with the padding."""
    if text.dtype == torch.float32:
        torch.testing.assert_close(ours, text, atol=2e-3, rtol=1e-3)
        return
    ours, text = ours.float().log_softmax(-1), text.float().log_softmax(-1)
    assert (text.exp() * (text - ours)).sum(-1).max() < 0.02  # nats


@roles
@pytest.mark.parametrize("side", ["left", "right"])
def test_logits(base: Any, told: Build, tokenizer: Any, task: Any, role: str, side: str) -> None:
    model = told(role).eval()
    assert model.prompt_text(tokenizer) == SAID[role]
    given = task(role).model_inputs(tokenizer, TEXTS, padding_side=side)
    with torch.no_grad():
        found = model(**given).logits
        for i, text in enumerate(TEXTS):
            ids = tokenizer(chat(tokenizer, role, text), add_special_tokens=False, return_tensors="pt")["input_ids"]
            part = slice(-ids.shape[1], None) if side == "left" else slice(ids.shape[1])
            assert task(role).fill(text, SAID[role], tokenizer) == chat(tokenizer, role, text)
            close(found[i, part], base(input_ids=ids).logits[0])


@roles
def test_what_is_generated(base: Any, told: Build, tokenizer: Any, task: Any, role: str) -> None:
    model, options = told(role).eval(), {"max_new_tokens": 5, "do_sample": False}
    for text in TEXTS:
        given = task(role).model_inputs(tokenizer, text)
        ids = tokenizer(chat(tokenizer, role, text), add_special_tokens=False, return_tensors="pt")
        ours, pasted = model.generate(**given, **options), base.generate(**ids, **options)
        assert torch.equal(ours[:, given["input_ids"].shape[1] :], pasted[:, ids["input_ids"].shape[1] :])


@roles
def test_the_training_loss(base: Any, told: Build, tokenizer: Any, task: Any, role: str) -> None:
    model, losses = told(role).train(), []
    for text, word in zip(TEXTS, WORDS, strict=True):
        row = task(role).encode(tokenizer, text, word)
        loss = model(**{name: torch.tensor([values]) for name, values in row.items()}).loss
        pasted = tokenizer(chat(tokenizer, role, text), add_special_tokens=False)["input_ids"]
        answer = tokenizer.encode(word)
        labels = torch.tensor([[*[-100] * len(pasted), *answer]])
        with torch.no_grad():
            wanted = base(input_ids=torch.tensor([[*pasted, *answer]]), labels=labels).loss
        torch.testing.assert_close(
            loss.detach().float(), wanted.float(), atol=1e-4 if base.dtype == torch.float32 else 0.05, rtol=1e-4
        )
        losses.append(loss)
    torch.stack(losses).sum().backward()
    assert model.prompt_encoder["default"].latent.grad.abs().max() > 0


@roles
def test_labels_and_faithfulness(told: Build, tokenizer: Any, task: Any, role: str) -> None:
    model, verbalizer = told(role), task(role)
    found = classify(model, tokenizer, TEXTS, verbalizer)
    assert {answer["label"] for answer in found} <= {*WORDS}
    rows = [verbalizer.encode(tokenizer, text, word) for text, word in zip(TEXTS, WORDS, strict=True)]
    sequences = verbalizer.label_sequences(tokenizer)
    measured = measure_faithfulness(model, tokenizer, rows, sequences, token_effects=False, progress=False)
    assert measured.kl < 0.02
    assert measured.token_error_rate == 0
    assert measured.as_prompt.accuracy == measured.as_text.accuracy
