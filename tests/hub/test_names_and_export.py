"""Names that may be public, and prompts to paste elsewhere."""

from __future__ import annotations

import json

import pytest

from peft_interp.base_model_name import loadable_name, loading_code, public_name
from peft_interp.embedded import MODEL_PATH
from peft_interp.hub.export import chat_json, chat_messages, fill_template


@pytest.mark.parametrize(
    ("recorded", "kind", "name"),
    [
        ("gpt2", "hub", "gpt2"),
        ("meta-llama/Llama-3.2-1B", "hub", "meta-llama/Llama-3.2-1B"),
        (MODEL_PATH, "embedded", "embedded"),
        ("/home/ann/venv/lib/peft_interp/embedded/model", "embedded", "embedded"),
        ("C:\\Users\\ann\\peft_interp\\embedded\\model", "embedded", "embedded"),
        ("/home/ann/base", "local", "base"),
        ("../runs/base", "local", "base"),
        ("~/base", "local", "base"),
        ("C:\\models\\base", "local", "base"),
        ("runs/one/base", "local", "base"),
        ("", "unknown", ""),
        (None, "unknown", ""),
    ],
)
def test_what_a_base_model_is_called_in_public(recorded: str | None, kind: str, name: str) -> None:
    found = public_name(recorded)
    assert (found.kind, found.name) == (kind, name)
    assert "/home" not in found.shown
    assert "ann" not in found.shown


def test_the_embedded_model_of_another_machine_is_the_one_here() -> None:
    assert loadable_name("/home/ann/venv/lib/peft_interp/embedded/model") == MODEL_PATH
    assert loadable_name("gpt2") == "gpt2"


def test_chat_messages() -> None:
    assert chat_messages("Judge:") == [{"role": "user", "content": "Judge: {text}"}]
    template = "{prompt} {text} It was"
    assert chat_messages("Judge:", template=template) == [{"role": "user", "content": "Judge: {text} It was"}]
    assert json.loads(chat_json(' Say "ja"\n', "system", template)) == [
        {"role": "system", "content": ' Say "ja"\n'},
        {"role": "user", "content": "{text} It was"},
    ]
    with pytest.raises(ValueError, match=r"`role='tool'` is unknown; use one of system, user\."):
        chat_messages("x", "tool")


def test_a_prompt_with_braces_fills_a_template_as_it_is() -> None:
    assert fill_template("{prompt} {text} It was", "a {text} {0}") == "a {text} {0} {text} It was"
    assert fill_template("{text} It was", "Judge:") == "Judge: {text} It was"


def test_a_prompt_at_the_end_brings_its_own_blank() -> None:
    assert fill_template("{text} {prompt}", " It was", "end") == "{text} It was"
    assert fill_template("{text}\n{prompt} ", "It was", "end") == "{text}\nIt was"
    assert fill_template("Review: {text}", " It was", "end") == "Review: {text} It was"
    assert chat_messages(" It was", position="end") == [{"role": "user", "content": "{text} It was"}]
    with pytest.raises(ValueError, match=r"`role='system'` stands in front of the input, .* use 'user'"):
        chat_messages(" It was", "system", position="end")


def test_what_was_shown_once_is_known_again() -> None:
    for recorded in ("gpt2", MODEL_PATH, "/home/ann/base"):
        name = public_name(recorded)
        assert public_name(name.shown) == name
    assert loading_code(public_name("/home/ann/base"), "SEQ_2_SEQ_LM") == (
        "from transformers import AutoModelForSeq2SeqLM",
        'base = AutoModelForSeq2SeqLM.from_pretrained("FOLDER_OF_THE_BASE_MODEL")',
    )


@pytest.mark.parametrize(
    ("template", "position"),
    [
        ("{prompt} {text} It was", "end"),
        ("{text} {prompt} so", "end"),
        ("{prompt} {text} {prompt}", "end"),
        ("{text} {prompt}", "start"),
        ("{prompt} {text} {prompt}", "start"),
    ],
)
def test_a_template_that_has_the_prompt_elsewhere_is_refused(template: str, position: str) -> None:
    for act in (
        lambda: fill_template(template, "It was", position),
        lambda: chat_messages("x", "user", template, position),
    ):
        with pytest.raises(ValueError, match=r"does not fit this prompt, which stands .* the text; write '"):
            act()
