"""Accuracy is read at the answer's place, over the label words only, and a tie is no hit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from peft_interp.text.verbalizer import Verbalizer, answer_logits, label_accuracy

LABELS = torch.tensor([[-100, -100, 7, -100], [-100, -100, -100, 5]])


@pytest.mark.parametrize("prompt_length", [0, 3])
def test_the_answer_is_read_one_column_before_the_label(prompt_length: int) -> None:
    logits = torch.randn(2, prompt_length + 4, 10)
    for given in (logits, (logits, "cache")):
        answers = answer_logits(given, LABELS)  # type: ignore[arg-type]
        assert torch.equal(answers, torch.stack((logits[0, prompt_length + 1], logits[1, prompt_length + 2])))


def test_a_text_that_is_all_label_is_predicted_by_the_prompt() -> None:
    logits = torch.randn(1, 4, 10)
    assert torch.equal(answer_logits(logits, torch.tensor([[7]])), logits[:, 2])


def test_only_the_first_labelled_token_counts() -> None:
    logits = torch.randn(1, 4, 10)
    assert torch.equal(answer_logits(logits, torch.tensor([[-100, 7, 8, 9]])), logits[:, 0])


def test_accuracy_counts_strict_wins() -> None:
    scores = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [1.0, 3.0, 2.0], [3.0, 3.0, 0.0]])
    assert label_accuracy(scores, torch.tensor([0, 0, 1, 0])) == 0.5


def test_a_model_that_says_nothing_scores_zero() -> None:
    assert label_accuracy(torch.zeros(8, 2), torch.tensor([0, 1] * 4)) == 0.0


def test_trainers_hooks_give_the_accuracy_of_the_label_words(byte_tokenizer: Any) -> None:
    verbalizer = Verbalizer("{prompt} {text} It was", ("bad", "great"))
    bad, great = verbalizer.label_token_ids(byte_tokenizer)
    labels = torch.tensor([[-100, -100, great], [-100, bad, -100], [-100, -100, bad]])
    logits = torch.zeros(3, 2 + 3, len(byte_tokenizer))
    logits[:, :, 11] = 99.0  # a token that is no label word
    logits[0, 3, great] = 1.0
    logits[1, 2, bad] = 1.0
    logits[2, 3, great] = 1.0
    scores = verbalizer.label_scores(byte_tokenizer)(logits, labels)
    assert scores.tolist() == [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    prediction = SimpleNamespace(predictions=scores.numpy(), label_ids=np.asarray(labels))
    assert verbalizer.accuracy(byte_tokenizer)(prediction) == {"accuracy": pytest.approx(2 / 3)}
