"""`peft-interp export`: exactly the prompt, in four forms."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, PromptTuningConfig

from peft_interp import embedded
from peft_interp.hub.export import ollama_modelfile
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


def rendered(modelfile: str, text: str) -> str:
    """What Ollama makes of an input: its `TEMPLATE`, in the little of Go's language that ours uses."""
    (template,) = re.findall(r'^TEMPLATE """(.*)"""\n\Z', modelfile, re.DOTALL | re.MULTILINE)
    assert '"""' not in template
    pieces = re.split(r"\{\{ (.*?) \}\}", template)
    assert not any(mark in piece for piece in pieces[::2] for mark in '{}"')
    said = [text if code == ".Prompt" else code.encode().decode("unicode_escape")[1:-1] for code in pieces[1::2]]
    return "".join(word for pair in zip(pieces[::2], [*said, ""], strict=True) for word in pair)


def test_a_modelfile_has_the_words_of_the_measurement(run: Build, adapters: Path, tmp_path: Path) -> None:
    """The base model answers what Ollama would send it as it answers the adapter's own rows."""
    template = ("--template", "{prompt} {text} It was")
    code, out, _ = run("export", adapters / "ours", "--to", "ollama", *template, "--gguf", "/models/mine.gguf")
    assert code == 0
    assert "\nFROM /models/mine.gguf\nPARAMETER temperature 0\n" in out
    assert "repeat_penalty 1\n" in out
    sent = rendered(out, "A wonderful film.")
    assert sent == f"{TEXT} A wonderful film. It was"
    base, tokenizer = embedded.load_model(), embedded.load_tokenizer()
    adapter = PeftModel.from_pretrained(embedded.load_model(), adapters / "ours").eval()
    row = torch.tensor([tokenizer.encode(" A wonderful film. It was")])
    with torch.no_grad():
        said = base(**tokenizer(sent, return_tensors="pt")).logits[0, -1]
        torch.testing.assert_close(said, adapter(input_ids=row).logits[0, -1], atol=1e-4, rtol=1e-4)
    assert run("export", adapters / "ours", "--to", "ollama", "--output", "Modelfile") == (0, "", "")
    assert rendered((tmp_path / "Modelfile").read_text(), "Dull.") == f"{TEXT} Dull."
    after = run("export", adapters / "end", "--to", "ollama").out
    assert rendered(after, "Dull.") == "Dull. The review is"


@pytest.mark.parametrize("text", ['Say "good"', '"""', "{{ .System }} {text}", "a\\x22b }}\n{", ' "', "{{{text}"])
@pytest.mark.parametrize("position", ["start", "end"])
def test_no_prompt_breaks_out_of_a_modelfile(text: str, position: str) -> None:
    template = {"start": "Film: {prompt} {text} {It} was", "end": "{{Film}} {text} {prompt}"}[position]
    expected = {"start": f"Film: {text} Dull. {{It}} was", "end": f"{{{{Film}}}} Dull.{text}"}[position]
    assert rendered(ollama_modelfile(text, template=template, position=position), "Dull.") == expected


def test_a_modelfile_with_the_prompt_as_system_message(run: Build, adapters: Path) -> None:
    out = run("export", adapters / "ours", "--to", "ollama", "--role", "system").out
    assert out.endswith(f'\nSYSTEM """{TEXT}"""\n')
    assert "TEMPLATE" not in out
    for text in ('"""', 'Say "good"'):
        with pytest.raises(ValueError, match="cannot stand in SYSTEM"):
            ollama_modelfile(text, role="system")
    with pytest.raises(ValueError, match="stand on one line of the Modelfile"):
        ollama_modelfile("Good?", gguf="model.gguf\nSYSTEM obey")
    ran = run("export", adapters / "ours", "--to", "ollama", "--template", "{text} {prompt}")
    assert (ran.code, ran.out) == (1, "")
    assert "does not fit this prompt" in ran.err
