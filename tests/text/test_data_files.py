"""Rows of text and label from files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peft_interp import load_rows

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
