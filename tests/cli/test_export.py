"""`peft-interp export`: exactly the prompt, in three forms."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, PromptTuningConfig

from peft_interp import embedded
from tests.builders import configure

Build = Callable[..., Any]
TEXT = " Is this film review positive or negative?"


def test_text_is_exact_on_standard_output_and_in_a_file(run: Build, adapters: Path, tmp_path: Path) -> None:
    assert run("export", adapters / "ours", "--to", "text") == (0, TEXT, "")
    assert run("export", adapters / "ours", "--to", "text", "--output", "prompt.txt") == (0, "", "")
    assert (tmp_path / "prompt.txt").read_bytes() == TEXT.encode()


def test_chat_messages_are_json(run: Build, adapters: Path) -> None:
    out = run("export", adapters / "ours", "--to", "chat").out
    assert json.loads(out) == [{"role": "user", "content": f"{TEXT} {{text}}"}]
    told = run("export", adapters / "ours", "--to", "chat", "--role", "system", "--template", "{prompt} {text} It was")
    assert json.loads(told.out) == [
        {"role": "system", "content": TEXT},
        {"role": "user", "content": "{text} It was"},
    ]


def test_portable_copy_is_stock_and_acts_alike(run: Build, adapters: Path, tmp_path: Path) -> None:
    assert run("export", adapters / "ours", "--to", "portable", "--output", "plain") == (0, "", "")
    stock = PeftModel.from_pretrained(embedded.load_model(), tmp_path / "plain").eval()
    ours = PeftModel.from_pretrained(embedded.load_model(), adapters / "ours").eval()
    assert type(stock.peft_config["default"]) is PromptTuningConfig
    ids = torch.tensor([[50, 60, 70]])
    with torch.no_grad():
        torch.testing.assert_close(stock(input_ids=ids).logits, ours(input_ids=ids).logits, atol=1e-5, rtol=1e-5)
    assert run("export", adapters / "ours", "--to", "portable").err == (
        "peft-interp: error: `--to portable` needs `--output FOLDER`.\n"
    )


@pytest.mark.parametrize("name", ["soft", "stock"])
def test_vectors_are_not_passed_off_as_text(run: Build, adapters: Path, name: str) -> None:
    ran = run("export", adapters / name, "--to", "text")
    assert (ran.code, ran.out) == (1, "")
    assert "this prompt is vectors, which no text says exactly; its nearest tokens are" in ran.err


def test_a_portable_copy_of_a_stock_adapter_is_refused(run: Build, adapters: Path) -> None:
    ran = run("export", adapters / "stock", "--to", "portable", "--output", "x")
    assert ran.code == 1
    assert "holds a PROMPT_TUNING adapter, which plain PEFT loads as it is" in ran.err


def test_a_prompt_after_the_text_is_exported_as_it_works_there(run: Build, adapters: Path) -> None:
    assert run("export", adapters / "end", "--to", "text") == (0, " The review is", "")
    out = run("export", adapters / "end", "--to", "chat").out
    assert json.loads(out) == [{"role": "user", "content": "{text} The review is"}]
    for template in ("Review: {text} {prompt}", "Review: {text}"):
        told = run("export", adapters / "end", "--to", "chat", "--template", template)
        assert json.loads(told.out) == [{"role": "user", "content": "Review: {text} The review is"}]
    broken = run("export", adapters / "end", "--to", "chat", "--template", "{text}\n{prompt}")
    assert json.loads(broken.out) == [{"role": "user", "content": "{text}\n The review is"}]


def test_what_a_prompt_after_the_text_cannot_be_is_said(run: Build, adapters: Path, tmp_path: Path) -> None:
    ran = run("export", adapters / "end", "--to", "chat", "--role", "system")
    assert (ran.code, ran.out) == (1, "")
    assert "`role='system'` stands in front of the input, but this prompt stands after it" in ran.err
    ran = run("export", adapters / "end", "--to", "portable", "--output", "x")
    assert (ran.code, ran.out) == (1, "")
    assert "plain PEFT puts a prompt at its start only" in ran.err
    assert not (tmp_path / "x").exists()


@pytest.fixture
def moved(adapters: Path, tmp_path: Path) -> Path:
    """An adapter whose base model is gone and whose tokenizer is named nowhere; its text was saved."""
    shutil.copytree(adapters / "ours", tmp_path / "moved")
    configure(tmp_path / "moved", base_model_name_or_path="/gone/base", tokenizer_name_or_path=None)
    return tmp_path / "moved"


def test_a_text_that_was_saved_is_not_believed(run: Build, moved: Path) -> None:
    """It lies beside the ids, where anybody can write; the base model's tokenizer reads them."""
    ran = run("export", moved, "--to", "text")
    assert (ran.code, ran.out) == (1, "")
    assert "no tokenizer can be loaded (none is named); name one with --tokenizer" in ran.err
    assert run("export", moved, "--to", "text", "--tokenizer", "embedded") == (0, TEXT, "")
    chat = run("export", moved, "--to", "chat", "--tokenizer", "embedded").out
    assert json.loads(chat) == [{"role": "user", "content": f"{TEXT} {{text}}"}]


def test_a_text_of_other_ids_is_not_taken_for_the_prompt(run: Build, moved: Path) -> None:
    facts = json.loads((moved / "prompt.json").read_text())
    (moved / "prompt.json").write_text(json.dumps({**facts, "ids": facts["ids"][::-1]}))
    ran = run("export", moved, "--to", "text")
    assert (ran.code, ran.out) == (1, "")
    assert "no tokenizer can be loaded (none is named); name one with --tokenizer" in ran.err


def test_a_tokenizer_that_was_asked_for_must_be_there(run: Build, moved: Path) -> None:
    ran = run("export", moved, "--to", "text", "--tokenizer", moved / "none")
    assert (ran.code, ran.out) == (1, "")
    assert "no tokenizer can be loaded" in ran.err
