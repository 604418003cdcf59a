"""Mean answers among the label words, on every side, against a slow computation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from peft_interp.metrics.faithfulness import measure_faithfulness
from peft_interp.metrics.reading import read_prompt
from peft_interp.metrics.results import as_plain

Build = Callable[..., Any]


@torch.no_grad()
def test_label_words_by_hand(gpt2: Build, with_prompt: Build, words: Any, word_rows: Build) -> None:
    rows = word_rows(count=9)
    for i, row in enumerate(rows):
        row["input_ids"][-1] = 10 if i < 6 else 11
        row["labels"] = [-100] * (len(row["input_ids"]) - 1) + row["input_ids"][-1:]
    model = with_prompt(gpt2()).eval()
    found = measure_faithfulness(model, words, rows, [11, 10], batch_size=4, progress=False).answers
    assert found.label_token_ids == (11, 10)
    assert found.label_words == (" w11", " w10")
    assert found.rows == pytest.approx((1 / 3, 2 / 3))
    base, prompt = model.get_base_model(), read_prompt(model, words).ids
    sums = {"as_prompt": torch.zeros(2), "as_text": torch.zeros(2), "without": torch.zeros(2)}
    for row in rows:
        ids = row["input_ids"]
        logits = {
            "as_prompt": model(input_ids=torch.tensor([ids])).logits[0, -2],
            "as_text": base(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, -2],
            "without": base(input_ids=torch.tensor([ids])).logits[0, -2],
        }
        for side, values in logits.items():
            sums[side] += values[[11, 10]].softmax(-1) / len(rows)
    for side, values in sums.items():
        assert getattr(found, side) == pytest.approx(values.tolist(), abs=1e-5)
    assert found.as_prompt != pytest.approx(found.without, abs=1e-3)


def test_a_classifiers_classes_have_their_names(bert: Build, readable: Build, words: Any, token_ids: Build) -> None:
    model = readable(bert(num_labels=3, id2label={0: "bad", 1: "fair", 2: "good"}), "SEQ_CLS")
    rows = [{"input_ids": ids, "labels": 2} for ids in token_ids(4, 6).tolist()]
    found = measure_faithfulness(model, words, rows, progress=False).answers
    assert (found.label_token_ids, found.label_words) == ((0, 1, 2), ("bad", "fair", "good"))
    assert found.rows == (0, 0, 1)
    assert found.as_prompt == pytest.approx(found.as_text, abs=1e-5)
    assert sum(found.without) == pytest.approx(1)


def test_without_label_words_there_are_none(gpt2: Build, readable: Build, words: Any, word_rows: Build) -> None:
    assert measure_faithfulness(readable(gpt2()), words, word_rows(), progress=False).answers is None


def test_differences_of_performance_are_in_the_record(gpt2: Build, with_prompt: Build, words: Any) -> None:
    rows = [{"input_ids": [20 + i, 10 + i % 2], "labels": [-100, 10 + i % 2]} for i in range(8)]
    found = measure_faithfulness(with_prompt(gpt2()), words, rows, [10, 11], progress=False)
    plain = as_plain(found)
    assert plain["loss_difference"] == abs(found.as_prompt.loss - found.as_text.loss) > 0
    assert plain["accuracy_difference"] == found.as_prompt.accuracy - found.as_text.accuracy
    assert plain["answers"]["rows"] == [0.5, 0.5]
