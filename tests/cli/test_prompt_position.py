"""A prompt is measured and exported where its adapter has it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel, get_peft_model

from peft_interp import InterpPromptConfig, Verbalizer, embedded, report_prompt

Build = Callable[..., Any]
ROWS = "text,label\nA warm film.,1\nDull and long.,0\n"


@pytest.fixture
def after(adapters: Path, tmp_path: Path) -> Path:
    """A copy of the adapter whose prompt stands after the text."""
    shutil.copytree(adapters / "end", tmp_path / "end")
    return tmp_path / "end"


def test_a_prompt_after_the_text_is_measured_there_without_being_asked(run: Build, after: Path) -> None:
    ran = run("read", after, "--task", "sentiment", "--rows", "20", "--attach", "--json", "report.json")
    assert ran.code == 0, ran.err
    report = json.loads((after.parent / "report.json").read_text())
    assert report["context"]["template"] == "{text} {prompt}"
    asked = run("evaluate", after, "--task", "sentiment", "--rows", "20", "--template", "{text} {prompt}")
    assert json.loads(asked.out)["faithfulness"] == report["faithfulness"]
    assert "text = '{text} The review is'.replace(" in (after / "README.md").read_text()
    chat = json.loads(run("export", after, "--to", "chat").out)
    assert chat == [{"role": "user", "content": "{text} The review is"}]


@pytest.mark.parametrize(
    ("given", "used"),
    [(None, "{text} {prompt}"), ("Film: {text}", "Film: {text} {prompt}"), ("{text}\n", "{text}\n{prompt}")],
)
def test_a_template_that_names_no_place_gets_that_of_the_adapter(
    run: Build, after: Path, tmp_path: Path, given: str | None, used: str
) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    options = [] if given is None else ["--template", given]
    ran = run("evaluate", after, "--data", "rows.csv", "--label-words", "terrible", "great", *options)
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["context"]["template"] == used


@pytest.mark.parametrize(
    ("name", "template", "words"),
    [
        ("end", "{prompt} {text} It was", "has the prompt at the start, but the adapter's `prompt_position='end'`"),
        ("ours", "{text} {prompt}", "has the prompt at the end, but the adapter's `prompt_position='start'`"),
        ("stock", "{text} {prompt}", "has the prompt at the end, but the adapter's `prompt_position='start'`"),
    ],
)
def test_a_template_that_has_the_prompt_elsewhere_is_refused(
    run: Build, adapters: Path, name: str, template: str, words: str
) -> None:
    ran = run("read", adapters / name, "--task", "sentiment", "--template", template)
    assert (ran.code, ran.out) == (1, "")
    assert words in ran.err
    if name != "stock":  # whose vectors are no text
        chat = run("export", adapters / name, "--to", "chat", "--template", template)
        assert (chat.code, chat.out) == (1, "")
        assert "does not fit this prompt, which stands" in chat.err


def test_a_prompt_inside_a_template_of_several_columns(run: Build, tmp_path: Path) -> None:
    """It is measured where the template says, which the adapter's files do not know."""
    config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, prompt_position="template")
    model = get_peft_model(embedded.load_model(), config)
    model.save_pretrained(tmp_path / "inside")
    (tmp_path / "pairs.csv").write_text("first,second,label\nA warm film.,I liked it.,great\nDull.,I left.,very bad\n")
    data = ["--data", "pairs.csv", "--label-words", "very bad", "great"]
    template = "{first}\n{prompt}\n{second} It was"
    ran = run("evaluate", tmp_path / "inside", *data, "--template", template)
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert report["context"]["template"] == template
    assert report["faithfulness"]["as_prompt"] == report["faithfulness"]["as_text"]
    assert report["faithfulness"]["as_prompt"]["accuracy"] in (0.0, 0.5, 1.0)
    for options, words in {
        (): "this prompt stands inside its template, which only you know; name it with `--template`",
        ("--template", "{first} {second}"): "does not say where the prompt stands",
        (
            "--template",
            "{prompt} {first}",
        ): "the prompt at the start, but the adapter's `prompt_position='template'`",
        ("--template", "{frist}\n{prompt}\n{second}"): "has no column ['frist'], only ['first', 'second', 'label']",
        ("--template", "{prompt} {second}", "--chat", "user"): "needs a tokenizer with a chat template",
    }.items():
        refused = run("evaluate", tmp_path / "inside", *data, *options)
        assert (refused.code, refused.out) == (1, "")
        assert words in refused.err


def test_a_report_measured_elsewhere_is_not_taken_for_a_template(run: Build, after: Path) -> None:
    """Reports that are attached already may say so; the adapter can still be saved, and its card is right."""
    tokenizer = embedded.load_tokenizer()
    model: Any = PeftModel.from_pretrained(embedded.load_model(), after)
    rows = embedded.load_data("sentiment")["test"].select(range(4))
    elsewhere = Verbalizer("{prompt} {text} It was", ("terrible", "great"))
    report = report_prompt(model, tokenizer, context={"template": elsewhere.template}, progress=False)
    assert len(elsewhere.encode_dataset(tokenizer, rows)) == 4
    model.attach_report(report)
    model.save_pretrained(after)
    card = (after / "README.md").read_text()
    assert "text = 'Your input. The review is'" in card or "text = \"Your input.\" + ' The review is'" in card
    ran = run("export", after, "--to", "chat")
    assert (ran.code, ran.out) == (1, "")
    assert "the attached report was measured with '{prompt} {text} It was'" in ran.err
    told = run("export", after, "--to", "chat", "--template", "{text} {prompt}")
    assert json.loads(told.out) == [{"role": "user", "content": "{text} The review is"}]
