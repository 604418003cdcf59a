"""Data as people have it: labels of other kinds, empty cells, texts longer than the model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peft_interp import Verbalizer, embedded

Build = Callable[..., Any]
DATA = ["--data", "rows.csv", "--label-words", "terrible", "great"]
LIMIT = 256  # positions of the embedded model

UNUSABLE = {
    "words as labels": (
        "text,label\nA warm film.,positive\nDull.,negative\n",
        "column 'label', row 1: `label='positive'` is none of ['terrible', 'great']; mend it",
    ),
    "half a label": (
        "text,label\nA warm film.,1\nDull.,0.5\n",
        "column 'label', row 2: `label=0.5` is no whole number",
    ),
    "no label": ("text,label\nA warm film.,1\nDull.,\n", "column 'label', row 2: `label=None` is no whole number"),
    "no such label": (
        "text,label\nA warm film.,1\nDull.,-1\n",
        "column 'label', row 2: `label=-1` has no word; use 0 to 1 and drop other rows",
    ),
    "no text": ("text,label\nA warm film.,1\n,0\nDull.,0\n", "column 'text', row 2: there is no text; fill it in"),
    "a number for a text": ("text,label\n12,1\n13,0\n", "column 'text', row 1: 12 is no text; name another with"),
}


@pytest.mark.parametrize("case", UNUSABLE)
@pytest.mark.parametrize("rows", ["200", "1"])
def test_rows_that_cannot_be_used_are_named(run: Build, adapters: Path, tmp_path: Path, case: str, rows: str) -> None:
    """Whether or not they are among those that would be measured."""
    content, words = UNUSABLE[case]
    (tmp_path / "rows.csv").write_text(content)
    ran = run("evaluate", adapters / "ours", *DATA, "--rows", rows)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("peft-interp: error: ")
    assert ran.err.count("\n") == 1
    assert words in ran.err


def test_whole_numbers_count_as_labels_however_a_table_stores_them(run: Build, adapters: Path, tmp_path: Path) -> None:
    found = []
    for zero, one in (("0", "1"), ("0.0", "1.0"), ("False", "True")):
        (tmp_path / "rows.csv").write_text(f"text,label\nA warm film.,{one}\nDull and long.,{zero}\n")
        ran = run("evaluate", adapters / "ours", *DATA)
        assert ran.code == 0, ran.err
        found.append(json.loads(ran.out)["faithfulness"])
    assert found[0] == found[1] == found[2]


def test_labels_as_people_write_them(run: Build, adapters: Path, tmp_path: Path) -> None:
    """As words, from 1 on, or by names that are given; in a file whose ending is in capitals."""
    found = []
    cases = (("0", "1", []), ("terrible", "Great", []), ("1", "2", []), ("neg", "pos", ["--label-names", "neg", "pos"]))
    for zero, one, options in cases:
        (tmp_path / "ROWS.TSV").write_text(f'text\tlabel\n"A warm film.\t{one}\nDull and long.\t{zero}\n')
        ran = run("evaluate", adapters / "ours", "--data", "ROWS.TSV", *DATA[2:], *options)
        assert ran.code == 0, ran.err
        found.append(json.loads(ran.out)["faithfulness"])
    assert found[1:] == found[:1] * 3
    (tmp_path / "rows.csv").write_text("text,label\nA warm film.,pos\nDull.,neg\n")
    ran = run("evaluate", adapters / "ours", *DATA)
    assert "name the data's labels, in the words' order, with `--label-names`" in ran.err


def test_labels_and_texts_are_checked_without_the_command_line() -> None:
    verbalizer, tokenizer = Verbalizer("{prompt} {text} It was", ("terrible", "great")), embedded.load_tokenizer()
    for one in (1, 1.0, True, np.int64(1), np.float32(1.0)):
        assert verbalizer.encode(tokenizer, "Fine.", one) == verbalizer.encode(tokenizer, "Fine.", 1)  # type: ignore[arg-type]
    for label in ("1", None, 0.5, float("nan")):
        with pytest.raises(ValueError, match=r"is no whole number; number the labels 0 to 1|`label='1'` is none of"):
            verbalizer.encode(tokenizer, "Fine.", label)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`text=None` is no text"):
        verbalizer.encode(tokenizer, None, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["ours", "end", "stock", "soft"])
def test_long_texts_are_cut_and_counted(run: Build, adapters: Path, tmp_path: Path, name: str) -> None:
    short, long = "A warm film.", "A warm film that goes on and on. " * 40
    lines = [f"{long},1", f"{short},0", f"{short},1"]
    (tmp_path / "rows.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    ran = run("evaluate", adapters / name, *DATA)
    assert ran.code == 0, ran.err
    told = f"1 of 3 texts, at their end, to fit the model's {LIMIT} positions beside the prompt"
    assert f"peft-interp: note: cut: {told}.\n" in ran.err
    scores = json.loads(ran.out)
    assert scores["context"]["cut"] == told
    assert scores["faithfulness"]["rows"] + scores["faithfulness"]["skipped_rows"] == 3


def test_nothing_is_said_of_texts_that_fit(run: Build, adapters: Path) -> None:
    ran = run("evaluate", adapters / "ours", "--task", "sentiment", "--rows", "8")
    assert "cut" not in json.loads(ran.out)["context"]
    assert "cut" not in ran.err


def test_a_template_that_leaves_no_room_is_named(run: Build, adapters: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\nA warm film.,1\nDull.,0\n")
    ran = run("evaluate", adapters / "ours", *DATA, "--template", "{prompt} {text}" + " and so on" * 100)
    assert (ran.code, ran.out) == (1, "")
    assert "leaves no room for text beside the template" in ran.err
