"""The task without a prompt is held against the prompt at the same labels, whatever stands in front of a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from peft_interp.metrics.faithfulness import measure_faithfulness
from peft_interp.metrics.reading import read_prompt
from peft_interp.report.verdicts import acts

Build = Callable[..., Any]


@torch.no_grad()
def by_hand(base: Any, prompt: list[int], rows: Any, first: int) -> float:
    """Mean loss of the tokens from index `first` of each row on, after a prompt."""
    losses = []
    for row in rows:
        log_probs = base(input_ids=torch.tensor([[*prompt, *row]])).logits[0].log_softmax(-1)
        losses += [-log_probs[len(prompt) + i - 1, row[i]].item() for i in range(first, len(row))]
    return sum(losses) / len(losses)


@pytest.fixture
def short(token_ids: Build) -> list[list[int]]:
    """Six rows of three words and no BOS."""
    rows: list[list[int]] = token_ids(6, 3).tolist()
    return rows


def test_language_model_rows_are_compared_at_the_tokens_that_both_predict(
    llama: Build, readable: Build, words: Any, short: list[list[int]]
) -> None:
    """Nothing predicts a row's first token without a prompt; the prompt's loss there is not held against it."""
    model = readable(llama())
    prompt, base = model.prompt_token_ids(), model.get_base_model()
    rows = [{"input_ids": row, "labels": row} for row in short]
    found = measure_faithfulness(model, words, rows, batch_size=4, progress=False)
    assert found.as_prompt.loss == pytest.approx(by_hand(base, prompt, short, 0), abs=1e-5)
    assert found.without.loss == pytest.approx(by_hand(base, [], short, 1), abs=1e-5)
    assert found.as_prompt_shared.loss == pytest.approx(by_hand(base, prompt, short, 1), abs=1e-5)
    assert found.beside_without == found.as_prompt_shared != found.as_prompt
    expected = f"from {found.without.loss:.2f} to {by_hand(base, prompt, short, 1):.2f} nats"
    assert expected in acts(read_prompt(model, words), found)[1]


def test_a_bos_in_front_makes_all_labels_comparable(
    llama: Build, readable: Build, words: Any, short: list[list[int]]
) -> None:
    rows = [{"input_ids": [1, *row], "labels": [1, *row]} for row in short]
    found = measure_faithfulness(readable(llama()), words, rows, progress=False)
    assert found.as_prompt_shared is None
    assert found.beside_without is found.as_prompt


def test_rows_of_a_label_alone_have_no_task_without_a_prompt(gpt2: Build, readable: Build, words: Any) -> None:
    model = readable(gpt2())
    rows = [{"input_ids": [10 + i % 2], "labels": [10 + i % 2]} for i in range(6)]
    found = measure_faithfulness(model, words, rows, [10, 11], progress=False)
    assert found.without.loss != found.without.loss  # NaN: nothing was predicted
    assert found.without.accuracy is None
    answer, why = acts(read_prompt(model, words), found)
    assert answer == "unknown"
    assert "nothing stands in front of the labels" in why
    assert found.answers.without is None
    only = measure_faithfulness(model, words, rows, progress=False, without=False)
    assert only.without is only.as_prompt_shared is None


def test_accuracy_counts_the_rows_whose_answer_both_predict(gpt2: Build, readable: Build, words: Any) -> None:
    """Half of the rows hold a label alone."""
    alone = [{"input_ids": [10 + i % 2], "labels": [10 + i % 2]} for i in range(4)]
    after = [{"input_ids": [20 + i, 10 + i % 2], "labels": [-100, 10 + i % 2]} for i in range(4)]
    model = readable(gpt2())
    mixed = measure_faithfulness(model, words, [*alone, *after], [10, 11], progress=False)
    half = measure_faithfulness(model, words, after, [10, 11], progress=False)
    assert mixed.without.accuracy == half.without.accuracy
    assert mixed.without.loss == pytest.approx(half.without.loss, abs=1e-5)
    assert mixed.as_prompt_shared.accuracy == half.as_prompt.accuracy
    assert mixed.as_prompt_shared.loss == pytest.approx(half.as_prompt.loss, abs=1e-5)
    assert half.as_prompt_shared is None
