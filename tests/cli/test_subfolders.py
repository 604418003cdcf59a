"""`--subfolder` and `--revision` of an adapter in a folder; those of the Hub stand in `tests/hub`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peft_interp.hub.adapter_files import write_portable

Build = Callable[..., Any]
TEXT = " Is this film review positive or negative?"


def test_a_stock_copy_is_read_by_its_subfolder(run: Build, adapters: Path, tmp_path: Path) -> None:
    write_portable(adapters / "ours", tmp_path / "copies" / "plain")
    ran = run("evaluate", tmp_path / "copies", "--subfolder", "plain", "--base-model", "embedded")
    assert ran.code == 0, ran.err
    scores = json.loads(ran.out)
    assert (scores["text"], scores["method"]) == (TEXT, "PROMPT_TUNING")
    assert scores["context"]["adapter"] == "copies/plain"


def test_a_report_is_attached_where_the_adapter_lies(run: Build, adapters: Path, tmp_path: Path) -> None:
    shutil.copytree(adapters / "ours", tmp_path / "both" / "second")
    assert run("read", "both", "--subfolder", "second", "--attach").code == 0
    assert (tmp_path / "both" / "second" / "prompt_report.json").exists()
    assert run("export", "both", "--subfolder", "second", "--to", "text") == (0, TEXT, "")


def test_what_cannot_be_is_said(run: Build, adapters: Path) -> None:
    for options, words in (
        (["--subfolder", "none"], "ours/none' is no adapter folder"),
        (["--subfolder", "../stock"], "`--subfolder ../stock` must lie within the adapter's folder"),
        (["--subfolder", str(adapters)], "must lie within the adapter's folder"),
        (["--revision", "v1"], "`--revision v1` is for the Hub, but"),
    ):
        ran = run("read", adapters / "ours", *options)
        assert (ran.code, ran.out) == (1, "")
        assert words in ran.err
    ran = run("read", "me/nothing", "--subfolder", "../x")
    assert (ran.code, ran.out) == (1, "")
    assert "must lie within the adapter's folder" in ran.err
