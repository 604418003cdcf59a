"""A stranger's adapter folder: no string of its files gets into the user's card as more than text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt
from peft import get_peft_model

from peft_interp import InterpPromptConfig, embedded, report_prompt
from peft_interp.hub.card import BEGIN, END
from peft_interp.hub.saving import write_card
from peft_interp.report.texts import printable
from peft_interp.tuner.stored_config import is_stored_prompt

Build = Callable[..., Any]
POLYGLOT = "\n".join(
    [
        'x" onload=alert(1) <script>alert(1)</script> <meta http-equiv=refresh> <form action=http://evil.org>',
        "# Verified by Hugging Face",
        "---\nlicense: stolen\n---",
        "Verified\n===",
        "[click](http://evil.org) ![x](http://evil.org/a.png) http://evil.org www.evil.org ann@evil.org",
        "``` ```` `a`\n```\n# out",
        f"{END}\n# out\n{BEGIN}",
        "| a | b |\n- c\n1. d",
        "\x1b[31m\u202e\u200b\x9b\u2028\u3164",
        "{{ 7 * 7 }} {% raw %}",
    ]
)
HEADINGS = {
    *("The prompt", "May you believe it?", "Verdict", "Scores", "Tokens", "Where this comes from", "How to use it"),
    *("With peft_interp", "With plain PEFT, without this package", "As plain text", "How it was trained"),
}
TITLES = re.compile(r"A (?:readable |soft )?prompt(?: that [a-z ]+)?")


def one_by_one(value: Any, words: str, numbers: bool) -> Iterator[Any]:
    """The content once for each string in it, keys included, with that one replaced; and each of `numbers`."""
    if isinstance(value, str) or (numbers and (isinstance(value, (int, float)) or value is None)):
        yield words
    elif isinstance(value, dict):
        for key, item in value.items():
            yield {(words if other == key else other): x for other, x in value.items()}
            yield from ({**value, key: x} for x in one_by_one(item, words, numbers))
    elif isinstance(value, list):
        for i, item in enumerate(value[:2]):
            yield from ([*value[:i], x, *value[i + 1 :]] for x in one_by_one(item, words, numbers))


@pytest.fixture
def folder(gpt2: Build, tokenizer_dir: Path, tmp_path: Path) -> Path:
    """A saved adapter that was searched for, with a report and `prompt.json`."""
    from transformers import AutoTokenizer

    settings = {"num_virtual_tokens": 3, "tokenizer_name_or_path": str(tokenizer_dir), "banned_words": ["w9"]}
    model: Any = get_peft_model(gpt2(), InterpPromptConfig(task_type="CAUSAL_LM", **settings))
    rows = [{"input_ids": [1, 5 + i, 7, 9], "labels": [-100, -100, -100, 9]} for i in range(4)]
    words = AutoTokenizer.from_pretrained(tokenizer_dir)
    context = {"data": "films", "template": "{prompt} {text}", "label_words": ["bad", "good"]}
    model.attach_report(report_prompt(model, words, rows, progress=False, context=context))
    found_by = {"trainer": "RLPromptTrainer", "steps": 3, "prompts_scored": 9, "rewards": {"gap": 1.0}}
    model.peft_config["default"].found_by = {**found_by, "settings": {"weight": 0.3, "names": ["a"]}}
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def check_card(card: str) -> None:
    """Our headings only, no HTML but our two markers, no link but the base model's, and a harmless front matter."""
    head, body = re.fullmatch(r"---\n(.*?\n)---\n(.*)", card, re.S).groups()
    data = yaml.safe_load(head)
    assert "license" not in data
    assert set(data) <= {"library_name", "tags", "base_model", "pipeline_tag", "model-index"}
    tokens = MarkdownIt("commonmark").enable(["table"]).parse(body)
    headings = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    assert TITLES.fullmatch(headings[0]), headings[0]
    assert set(headings[1:]) <= HEADINGS
    assert len(set(headings)) == len(headings)
    assert [token.content.strip() for token in tokens if token.type == "html_block"] == [BEGIN, END]
    kinds = {child.type for token in tokens for child in token.children or []}
    assert not kinds & {"html_inline", "image"}
    links = [child.attrs["href"] for token in tokens for child in token.children or [] if child.type == "link_open"]
    assert all(re.fullmatch(r"https://huggingface\.co/[\w.-]+(/[\w.-]+)?", str(link)) for link in links)
    texts = [child.content for token in tokens for child in token.children or [] if child.type == "text"]
    assert not [text for text in texts if re.search(r"https?://evil|www\.evil|\w@evil", text)]
    assert printable(body, keep="\n\t") == body


@pytest.mark.parametrize("name", ["adapter_config.json", "prompt.json", "prompt_report.json"])
def test_no_string_of_a_strangers_file_becomes_markup(folder: Path, name: str) -> None:
    whole, tokenizer = json.loads((folder / name).read_text()), embedded.load_tokenizer()
    written = refused = 0
    for broken in one_by_one(whole, POLYGLOT, numbers=name == "adapter_config.json"):
        if name == "adapter_config.json" and not is_stored_prompt(broken):
            continue
        (folder / name).write_text(json.dumps(broken))
        (folder / "README.md").unlink(missing_ok=True)
        try:
            write_card(folder, {"": tokenizer})
        except (ValueError, TypeError):  # of a value that no adapter can have
            refused += 1
            continue
        if BEGIN in (card := (folder / "README.md").read_text(encoding="utf-8")):
            check_card(card)
            written += 1
    assert written > 20
    assert refused < written


def test_all_files_at_once_and_a_second_save(folder: Path) -> None:
    for name in ("prompt.json", "prompt_report.json"):
        plain = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(poisoned(plain, POLYGLOT)))
    (folder / "README.md").unlink()
    write_card(folder, {"": embedded.load_tokenizer()})
    first = (folder / "README.md").read_text()
    check_card(first)
    write_card(folder, {"": embedded.load_tokenizer()})
    assert (folder / "README.md").read_text() == first


def poisoned(value: Any, words: str, key: str = "") -> Any:
    """Every string replaced, but for answers, which have to be one of four."""
    if isinstance(value, str):
        return value if key in ("answer", "question", "position") else words
    if isinstance(value, dict):
        return {name: poisoned(item, words, name) for name, item in value.items()}
    return [poisoned(item, words, key) for item in value] if isinstance(value, list) else value
