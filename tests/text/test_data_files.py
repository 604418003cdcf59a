"""Rows of text and label from files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from peft_interp import load_rows
from peft_interp.text.data_files import label_indices

ROWS = [{"sentence": 'A warm, "funny" film.', "label": 1}, {"sentence": "Dull.", "label": 0}]


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl"])
def test_rows_come_back_as_they_were_written(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows.{ending}"
    if ending in ("csv", "tsv"):
        mark = "," if ending == "csv" else "\t"
        quoted = ['"' + row["sentence"].replace('"', '""') + f'"{mark}{row["label"]}' for row in ROWS]
        path.write_text("\n".join([f"sentence{mark}label", *quoted]) + "\n")
    else:
        path.write_text(json.dumps(ROWS) if ending == "json" else "".join(json.dumps(row) + "\n" for row in ROWS))
    assert load_rows(path).to_list() == load_rows(str(path)).to_list() == ROWS


def test_an_ending_in_upper_case_and_empty_rows(tmp_path: Path) -> None:
    (tmp_path / "ROWS.CSV").write_text("sentence,label\nGood.,1\n,\n\nBad.,0\n,\n")
    (tmp_path / "rows.JSONL").write_text('{"sentence": "Good.", "label": 1}\n\n{"sentence": "Bad.", "label": 0}\n\n')
    for name in ("ROWS.CSV", "rows.JSONL"):
        assert load_rows(tmp_path / name).to_list() == [
            {"sentence": "Good.", "label": 1},
            {"sentence": "Bad.", "label": 0},
        ]


STRAY = [
    '"Quirky , funny and warm .',
    "It was dull .",
    "A mess .",
    'He said it was "good" .',
    'Never again"',
    "Loved it .",
]


@pytest.mark.parametrize("chosen", [range(6), range(3), (0, 1, 4), (3, 5), (4, 5)])
def test_stray_quotation_marks_of_a_tsv_belong_to_the_text(tmp_path: Path, chosen: Sequence[int]) -> None:
    """They swallowed the lines up to the next one, with the last one's label, or refused the file."""
    texts = [STRAY[i] for i in chosen]
    (tmp_path / "rows.tsv").write_text("sentence\tlabel\n" + "".join(f"{text}\t1\n" for text in texts))
    assert load_rows(tmp_path / "rows.tsv")["sentence"][:] == texts


def test_a_quoted_tsv_may_have_lines_within_a_cell(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text('sentence\tlabel\n"One.\nTwo, ""three""."\t1\nFour.\t0\n')
    assert load_rows(tmp_path / "rows.tsv")["sentence"][:] == ['One.\nTwo, "three".', "Four."]


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        ([1, 0, 1], None, [1, 0, 1]),
        (["Great", "terrible ", "great"], None, [1, 0, 1]),
        (["1", "0"], None, [1, 0]),
        ([1, 2, 2], None, [0, 1, 1]),
        ([1.0, 2.0], None, [0, 1]),
        (["1", "2"], None, [0, 1]),
        ([1, 1], None, [1, 1]),  # may as well count from 0
        ([0, 1, 2], None, [0, 1, 2]),
        ([-1, 2], None, [-1, 2]),
        (["yes", "great"], None, ["yes", "great"]),
        ([None, 1], None, [None, 1]),
        ([], None, []),
        (["no", "yes"], ["yes", "no"], [1, 0]),
        ([5, 3], ["3", "5"], [1, 0]),
    ],
)
def test_labels_of_other_kinds_become_indices_where_that_is_certain(
    labels: list[Any], names: list[str] | None, expected: list[Any]
) -> None:
    assert label_indices(labels, (" terrible", "great"), names) == expected


def test_label_names_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"row 2: the label 'maybe' is not among the label names \['no', 'yes'\]"):
        label_indices(["no", "maybe"], ("terrible", "great"), ["no", "yes"])
    for names in (["no"], ["no", "no"]):
        with pytest.raises(ValueError, match=r"must be as many as the label words \['terrible', 'great'\], each once"):
            label_indices(["no"], ("terrible", "great"), names)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.txt", "a\n", r"must end in \.jsonl, \.json, \.csv, \.tsv"),
        ("rows.csv", None, "there is no file"),
        ("rows.csv", "sentence,label\n\n", "holds no rows"),
        ("rows.json", "[]\n", "holds no rows"),
        ("rows.jsonl", '{"sentence": \n', "cannot be read as jsonl"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        load_rows(tmp_path / name)
