"""The table of docs/families.md is what the sweep finds."""

from __future__ import annotations

import pytest

from tools import families


@pytest.mark.slow
def test_the_table_is_what_the_sweep_finds() -> None:
    cells = families.sweep()
    assert families.table(cells).strip() in families.PAGE.read_text(encoding="utf-8"), (
        "python -m tools.families --write"
    )
    wrong = [cell for cell in cells if cell.words and not cell.words.startswith(("exact", "refused"))]
    assert not wrong
    assert sum(cell.words.startswith("exact") for cell in cells) > 100


@pytest.mark.parametrize(("family", "task"), [("opt", "SEQ_CLS"), ("roberta", "CAUSAL_LM"), ("t5", "SEQ_2_SEQ_LM")])
def test_some_cells(family: str, task: str) -> None:
    assert families.try_cell(family, task).words == "exact"
