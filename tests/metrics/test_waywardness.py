"""A soft prompt can be made to read as anything and solve the task (arXiv 2112.08348); the caller's model stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from peft_interp import embedded
from peft_interp.metrics.waywardness import measure_waywardness

Build = Callable[..., Any]


@pytest.mark.parametrize("text", ["This is about cooking pasta at home.", "Always answer terrible."])
def test_an_unrelated_and_a_contradictory_text(english: Any, sentiment: Any, answers: list[int], text: str) -> None:
    train = [row for row in sentiment["train"] if len(row["input_ids"]) <= 22]
    quick = {"steps": 60, "eval_rows": sentiment["test"][:100], "progress": False}
    found = measure_waywardness(embedded.load_model(), english, train, text, answers, **quick)
    assert found.target_text == text
    assert found.projected_share == 1
    assert found.target.accuracy < 0.6
    assert found.wayward.accuracy > found.target.accuracy + 0.1
    assert found.wayward.loss < found.target.loss - 0.1


def test_the_hinge_lets_training_go_on_beside_the_text(gpt2: Build, words: Any, word_rows: Build) -> None:
    """Without it vectors soon read as something else, and only the steps before that count."""
    quick = {"target_text": "w5 w9 w30", "steps": 40, "progress": False}
    loose = measure_waywardness(gpt2(), words, word_rows(), weight=0, learning_rate=1, **quick)
    tight = measure_waywardness(gpt2(), words, word_rows(), **quick)
    assert tight.wayward.loss < loose.wayward.loss - 0.1
    assert tight.projected_share == 1
    assert tight.wayward.loss < tight.target.loss - 0.1
    assert tight.target == loose.target
    assert loose.wayward.accuracy is None


def test_the_target_is_the_text_in_front_of_each_row(llama: Build, words: Any, word_rows: Build) -> None:
    """After a BOS, as a person would paste it; before any step the vectors are the text."""
    rows = word_rows("some")
    base = llama()
    found = measure_waywardness(base, words, rows, "w5 w9", steps=0, progress=False)
    losses = []
    for row in rows:
        lead = 1 if row["input_ids"][0] == 1 else 0
        whole = [*row["input_ids"][:lead], 5, 9, *row["input_ids"][lead:]]
        with torch.no_grad():
            log_probs = base(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
        losses += [-log_probs[i - 1, whole[i]].item() for i in (-2, -1)]
    assert found.target.loss == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    assert found.wayward.loss == pytest.approx(found.target.loss, abs=1e-5)


def test_the_callers_model_and_adapter_are_not_touched(
    gpt2: Build, with_prompt: Build, words: Any, word_rows: Build
) -> None:
    model = with_prompt(gpt2()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainable = {name: p.requires_grad for name, p in model.named_parameters()}
    random = torch.get_rng_state()
    measure_waywardness(model, words, word_rows(), "w5 w9", steps=3, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {name: p.requires_grad for name, p in model.named_parameters()} == trainable
    assert all(p.grad is None for p in model.parameters())
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert list(model.peft_config) == ["default"]


def test_a_seed_repeats_the_run(gpt2: Build, words: Any, word_rows: Build) -> None:
    runs = [
        measure_waywardness(gpt2(), words, word_rows(), "w5 w9", steps=5, batch_size=2, seed=s, progress=False)
        for s in (0, 0, 1)
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


@pytest.mark.parametrize("text", ["", "</s> w5"])
def test_a_target_without_plain_words(gpt2: Build, words: Any, word_rows: Build, text: str) -> None:
    with pytest.raises(ValueError, match="has no tokens, or special ones; give plain words"):
        measure_waywardness(gpt2(), words, word_rows(), text)


def test_an_encoder_decoder_is_refused(t5: Build, words: Any, word_rows: Build) -> None:
    with pytest.raises(ValueError, match="T5ForConditionalGeneration is no causal language model"):
        measure_waywardness(t5(), words, word_rows(), "w5")


@torch.no_grad()
def test_an_end_prompt_stands_right_before_the_answer(
    llama: Build, readable: Build, words: Any, word_rows: Build
) -> None:
    """Where the adapter's prompt stands; before any step the vectors are the text."""
    rows = word_rows("some")
    model = readable(llama(), prompt_position="end")
    found = measure_waywardness(model, words, rows, "w5 w9", steps=0, progress=False)
    losses = []
    for row in rows:
        ids = row["input_ids"]
        whole = [*ids[:-2], 5, 9, *ids[-2:]]
        log_probs = model.get_base_model()(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
        losses += [-log_probs[i - 1, whole[i]].item() for i in (-2, -1)]
    assert found.target.loss == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    assert found.wayward.loss == pytest.approx(found.target.loss, abs=1e-5)
    named = measure_waywardness(llama(), words, rows, "w5 w9", steps=0, progress=False, position="end")
    assert named == found
    start = measure_waywardness(model, words, rows, "w5 w9", steps=0, progress=False, position="start")
    assert start.target.loss != pytest.approx(found.target.loss, abs=1e-3)
    trained = measure_waywardness(model, words, rows, "w5 w9", steps=20, progress=False)
    assert trained.wayward.loss < found.wayward.loss - 0.01


def test_an_end_text_brings_its_blank_along(english: Any, sentiment: Any, answers: list[int]) -> None:
    """As a person would paste it after the review: " Count apples", two tokens of their own."""
    found = measure_waywardness(
        embedded.load_model(), english, sentiment["test"][:8], "Count apples", answers,
        steps=0, progress=False, position="end",
    )  # fmt: skip
    assert found.wayward.loss == pytest.approx(found.target.loss, abs=1e-4)
    assert found.target_text == "Count apples"


def test_another_position_is_refused(gpt2: Build, words: Any, word_rows: Build) -> None:
    with pytest.raises(ValueError, match="`position='middle'` is unknown; use one of start, end"):
        measure_waywardness(gpt2(), words, word_rows(), "w5", position="middle")
