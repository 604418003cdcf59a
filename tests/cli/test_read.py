"""`peft-interp read` and `evaluate`: what a prompt says, and whether to believe it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from transformers.utils import logging

from peft_interp import embedded
from peft_interp.hub.adapter_files import write_portable

Build = Callable[..., Any]
TEXT = " Is this film review positive or negative?"


def test_a_prompt_is_shown_with_its_verdicts(run: Build, adapters: Path, tmp_path: Path) -> None:
    files = ["--html", "page.html", "--markdown", "page.md", "--json", "report.json"]
    ran = run("read", adapters / "ours", "--task", "sentiment", "--rows", "20", *files)
    assert ran.code == 0, ran.err
    assert TEXT.strip() in ran.out
    assert "the text is the prompt" in " ".join(ran.out.split())
    assert "names the base model by a path" in ran.err
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["reading"]["text"] == TEXT
    assert report["faithfulness"]["rows"] == 20
    assert report["context"]["data"] == "sentiment, embedded in peft_interp (test)"
    assert TEXT in (tmp_path / "page.md").read_text()
    assert (tmp_path / "page.html").read_text().startswith("<!")


def test_a_prompt_after_the_text_is_read_in_its_template(run: Build, adapters: Path) -> None:
    ran = run("evaluate", adapters / "end", "--task", "sentiment", "--rows", "20", "--template", "{text} {prompt}")
    assert ran.code == 0, ran.err
    scores = json.loads(ran.out)
    assert (scores["text"], scores["verdicts"]["faithful"]) == (" The review is", "yes")


def test_no_path_of_this_machine_is_written(run: Build, adapters: Path, tmp_path: Path) -> None:
    files = ["--html", "page.html", "--markdown", "page.md", "--json", "report.json"]
    ran = run("read", adapters / "ours", *files)
    written = ran.out + "".join((tmp_path / name).read_text() for name in ("page.html", "page.md", "report.json"))
    assert embedded.MODEL_PATH not in written
    assert str(adapters) not in written
    assert "adapter: ours" in ran.out


def test_the_libraries_are_as_loud_as_before(run: Build, adapters: Path) -> None:
    datasets.enable_progress_bars()
    assert run("read", adapters / "ours").code == 0
    assert not datasets.are_progress_bars_disabled()
    assert logging.is_progress_bar_enabled()


@pytest.mark.parametrize("name", ["ours", "stock", "soft"])
def test_scores_are_json_and_nothing_else(run: Build, adapters: Path, tmp_path: Path, name: str) -> None:
    rows = [("A warm film.", 1), ("Dull.", 0)] * 3
    (tmp_path / "rows.tsv").write_text("text\tclass\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    data = ["--data", "rows.tsv", "--label-column", "class", "--label-words", "terrible", "great"]
    ran = run("evaluate", adapters / name, *data)
    assert ran.code == 0, ran.err
    scores = json.loads(ran.out)
    assert scores["discrete"] is (name == "ours")
    assert scores["faithfulness"]["rows"] == 6
    assert scores["verdicts"]["faithful"] in ("yes", "partly", "no", "unknown")
    assert (scores["verdicts"]["faithful"] == "yes") or name != "ours"
    assert 0 <= scores["scrutability"]["score"] <= 1
    assert scores["context"]["data"] == "rows.tsv"
    if name == "ours":
        assert scores["text"] == TEXT


def test_a_stock_copy_reads_the_same_with_a_named_base_model(run: Build, adapters: Path, tmp_path: Path) -> None:
    write_portable(adapters / "ours", tmp_path / "plain")
    ran = run("evaluate", tmp_path / "plain", "--base-model", "embedded")
    assert ran.code == 0, ran.err
    scores = json.loads(ran.out)
    assert (scores["text"], scores["method"], scores["discrete"]) == (TEXT, "PROMPT_TUNING", True)


def test_an_attached_report_stands_in_the_card_and_fills_the_chat_template(
    run: Build, adapters: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "ours"
    shutil.copytree(adapters / "ours", folder)
    assert run("read", folder, "--task", "sentiment", "--rows", "8", "--attach").code == 0
    card = (folder / "README.md").read_text()
    assert "### Verdict" in card
    assert "model-index" in card
    assert embedded.MODEL_PATH not in card + (folder / "prompt_report.json").read_text()
    chat = json.loads(run("export", folder, "--to", "chat").out)
    assert chat == [{"role": "user", "content": f"{TEXT} {{text}} It was"}]
