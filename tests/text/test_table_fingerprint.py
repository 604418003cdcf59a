"""A table is recognised after a cast to another float format, and no other table is taken for it."""

from __future__ import annotations

import json

import pytest
import torch

from peft_interp.text.token_filter import same_table, table_fingerprint


@pytest.mark.parametrize("first", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("second", [torch.float32, torch.float16, torch.bfloat16])
def test_a_cast_table_is_the_same_table(first: torch.dtype, second: torch.dtype) -> None:
    table = torch.randn(500, 32) * 0.02
    assert same_table(table_fingerprint(table.to(first)), table_fingerprint(table.to(second)))


def test_another_seed_is_another_table() -> None:
    assert not same_table(table_fingerprint(torch.randn(500, 32)), table_fingerprint(torch.randn(500, 32)))


@pytest.mark.parametrize("shape", [(501, 32), (500, 33)])
def test_another_shape_is_another_table(shape: tuple[int, int]) -> None:
    table = torch.ones(500, 32)
    other = torch.full(shape, (32 / shape[1]) ** 0.5)  # every row has the same norm as in the first
    assert not same_table(table_fingerprint(table), table_fingerprint(other))


def test_a_fingerprint_is_short_and_plain_json() -> None:
    fingerprint = table_fingerprint(torch.randn(7, 3))
    assert len(fingerprint) == 18
    assert fingerprint[:2] == [7.0, 3.0]
    assert json.loads(json.dumps(fingerprint)) == fingerprint
