"""Tokenised examples become rows: without padding, a leading token apart, the prompt's place known; or errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from peft_interp.text.placement import END, START
from peft_interp.text.rows import Row, read_rows, without_padding

PLAIN = {"input_ids": [1, 5, 6, 7], "labels": [-100, -100, -100, 7]}


@pytest.mark.parametrize("make", [list, torch.tensor, np.array], ids=["list", "tensor", "array"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_goes_whatever_a_column_is(make: Any, side: str) -> None:
    pads = {"input_ids": [0, 0], "attention_mask": [0, 0], "labels": [-100, -100]}
    whole = {**PLAIN, "attention_mask": [1] * 4}
    row = {name: make(pads[name] + whole[name] if side == "left" else whole[name] + pads[name]) for name in whole}
    assert without_padding(row) == whole
    assert read_rows([row], [1]) == read_rows([PLAIN], [1])


@pytest.mark.parametrize(("placement", "start"), [(START, 0), (END, 2)])
def test_what_stands_before_and_after_the_prompt(placement: Any, start: int) -> None:
    (row,) = read_rows([PLAIN], [1], placement)
    assert row == Row((1,), (5, 6, 7), (-100, -100, 7), start)
    assert row.before == (1, 5, 6)[: 1 + start]
    assert row.after == (5, 6, 7)[start:]
    assert (row.length, row.first, row.last) == (4, 2, 2)


def test_a_leading_token_needs_to_be_known_and_followed() -> None:
    assert read_rows([PLAIN])[0].leading == ()
    assert read_rows([{"input_ids": [1], "labels": [1]}], [1])[0].leading == ()


@pytest.mark.parametrize(
    ("causal", "whole", "ids", "answers"),
    [
        (True, True, (1, 5, 8, 9, 6), ((3, 6), (4, 7))),
        (True, False, (1, 5, 8, 9), ((3, 6),)),
        (False, True, (1, 5, 8, 9, 6, 7), ((4, 6), (5, 7))),
    ],
)
def test_a_row_with_its_prompt(causal: bool, whole: bool, ids: Any, answers: Any) -> None:
    row = Row((1,), (5, 6, 7), (-100, 6, 7), start=1)
    assert row.compose([8, 9], causal, whole) == (ids, answers)


def test_nothing_predicts_the_first_token_of_a_sequence() -> None:
    row = Row((), (5, 6), (5, 6))
    assert row.compose([], causal=True, whole=True) == ((5,), ((0, 6),))
    assert row.compose([8], causal=True, whole=True) == ((8, 5), ((0, 5), (1, 6)))


def test_a_classifiers_row_has_its_class() -> None:
    assert read_rows([{"input_ids": [1, 5], "labels": 2}], [1], task="SEQ_CLS") == [Row((1,), (5,), (2,))]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([], {}, "`rows` is empty; pass at least one"),
        ("text", {}, "`rows` is a str and must be a data set or a list of dicts; pass tokenised rows"),
        ([[1, 2]], {}, "row 0 is a list and must be a dict"),
        ([PLAIN, {"input_ids": [5]}], {}, r"row 1 has no column \['labels'\]"),
        ([{"input_ids": [5, 6], "labels": [6]}], {}, "row 0 has 2 `input_ids`, 2 of `attention_mask` and 1 `labels`"),
        ([{"input_ids": [5], "labels": [5], "attention_mask": [1, 1]}], {}, "must be equally many"),
        ([{"input_ids": [5], "labels": [5], "attention_mask": [0]}], {}, "row 0 has no token; leave empty rows out"),
        ([{"input_ids": [5, 6], "labels": [-100, -100]}], {}, "no row of `rows` has a label other than -100"),
        (
            [PLAIN, {"input_ids": [5, 6], "labels": [-100, -100]}],
            {"every_row_labelled": True},
            "row 1 has no label other than -100; mark the tokens",
        ),
        (
            [{"input_ids": [5], "labels": [0, 1]}],
            {"task": "SEQ_CLS"},
            "row 0 has 2 `labels`; a classifier's row has one",
        ),
    ],
)
def test_rows_that_cannot_be_used_say_why(rows: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_rows(rows, **options)
