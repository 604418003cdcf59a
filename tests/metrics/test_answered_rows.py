"""Which rows got which answers: counts that add up to the accuracies, and rows to read where the sides differ."""

from __future__ import annotations

import pytest
import torch

from peft_interp import embedded
from peft_interp.metrics.answer_results import TIED, RowAnswers
from peft_interp.metrics.answered_rows import answered_rows
from peft_interp.metrics.differentials import TaskTotals
from peft_interp.metrics.faithfulness import measure_text


def test_counts_and_examples_by_hand() -> None:
    prompt = {0: (0, 0), 1: (1, 1), 2: (1, 1), 3: (1, 1), 4: (0, 1)}
    text = {**prompt, 4: (0, 0)}
    bare = {0: (0, 0), 1: (1, 0), 2: (1, 0), 3: (1, 0), 4: (0, 1)}
    found = answered_rows(prompt, text, bare, [10, 11, 12, 13, 14], lambda row: f"row {row}", most=3)
    assert [(pattern.answers, pattern.rows) for pattern in found.patterns] == [
        (RowAnswers(1, 1, 1, 0), 3),
        (RowAnswers(0, 0, 0, 0), 1),
        (RowAnswers(0, 1, 0, 1), 1),
    ]
    assert [(one.row, one.text) for one in found.examples] == [(11, "row 1"), (14, "row 4"), (12, "row 2")]
    assert answered_rows({}, {}, None, [], str, most=3) is None


def test_a_tie_is_no_answer_and_a_wrong_one() -> None:
    totals = TaskTotals([])
    logits = torch.tensor([[1.0, 0.0], [1.0, 1.0], [float("nan"), 1.0], [0.0, 2.0]])
    totals.add(logits, [0, 0, 1, 0], [True] * 4, owners=[5, 6, 7, 8])
    assert totals.answers == {5: (0, 0), 6: (0, TIED), 7: (1, TIED), 8: (0, 1)}
    assert totals.performance().accuracy == pytest.approx(1 / 4)


def test_measured_answers_add_up_and_rows_can_be_read() -> None:
    tokenizer, task = embedded.load_tokenizer(), embedded.TASKS["sentiment"]
    data = embedded.load_data("sentiment")["test"].select(range(24))
    rows = task.encode_dataset(tokenizer, data)
    known = task.label_token_ids(tokenizer)
    options = {"progress": False, "token_effects": False}
    found = measure_text(embedded.load_model(), tokenizer, rows, "Is this good or bad?", known, **options)
    answered = found.answered
    assert sum(pattern.rows for pattern in answered.patterns) == found.rows == 24
    for side, performance in (("as_text", found.as_text), ("without", found.without)):
        right = sum(p.rows for p in answered.patterns if getattr(p.answers, side) == p.answers.label)
        assert right / 24 == pytest.approx(performance.accuracy)
    assert 0 < len(answered.examples) <= 10
    for one in answered.examples:
        assert one.answers.differ
        assert data[one.row]["sentence"].split()[0] in one.text
        assert one.answers.label == data[one.row]["label"]
        assert not one.text.endswith((" great", " terrible"))
    none = measure_text(embedded.load_model(), tokenizer, rows, "Good?", known, row_examples=0, **options)
    assert none.answered.examples == ()
