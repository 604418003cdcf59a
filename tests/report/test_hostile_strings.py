"""Every string of a report replaced by hostile ones: no form of it gains markup, links, or control of the terminal."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from typing import Any

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from peft_interp.metrics.uncertainty import Estimate
from peft_interp.report import PromptComparison, PromptReport
from peft_interp.report.compared import ComparedPrompt, PromptDifference
from peft_interp.report.texts import printable

Build = Callable[..., Any]
HOSTILE = [
    "<script>alert(1)</script>",
    "<meta http-equiv=refresh content='0;url=http://evil.org'>",
    "<form action=http://evil.org><input name=a></form><iframe src=//evil.org>",
    "\"><img src=x onerror=alert(1)> ' onload='x",
    "</style><style>*{display:none}</style></title></head>",
    "</textarea></svg><!-- --><![CDATA[x]]>&lt;b&gt;&#60;b&#62;",
    "# Verified by Hugging Face",
    "x\n# Verified\n\n## by us\n===\n---\nlicense: mit\n---",
    "[click](http://evil.org) ![x](http://evil.org/a.png) <http://evil.org> [x]: http://evil.org",
    "http://evil.org www.evil.org ann@evil.org @evil https://evil.org/a|b`c",
    "``` ```` `a` ~~~\n```\n# out",
    "<!-- peft-interp: end -->\n# out",
    "a | b |\n| --- | --- |\n| c | d |",
    "- a\n  - b\n1. c\n    code",
    "[red]x[/red] [link=http://evil.org]y[/link] \\[bold]",
    "\x1b[31m\x1b]8;;http://evil.org\x07x\x1b]8;;\x07\x1b[2J\x9b1mz\x07\x08\r",
    "\u202eabc\u2066\u200b\u200f\ufeff\u2028\u3164\ufe0f\U000e0041",
    "\ud800 lone \x00",
    "{{ 7 * 7 }} {% raw %} {0.__class__} $title %s",
    "",
    " " * 6,
]
POLYGLOT = "\n".join(HOSTILE)
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "footer", "section", "div", "span"),
    *("h1", "h2", "h3", "h4", "p", "ul", "ol", "li", "strong", "b", "blockquote", "pre", "code", "dl", "dt", "dd"),
    *("svg", "rect", "circle", "path", "line", "text", "table", "caption", "thead", "tbody", "tr", "th", "td"),
}
INLINE = {"text", "text_special", "softbreak", "strong_open", "strong_close", "code_inline"}


def poisoned(value: Any, words: str) -> Any:
    """The same record with every string, keys included, replaced."""
    if isinstance(value, str):
        return words
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: poisoned(getattr(value, f.name), words) for f in fields(value) if f.init})
    if isinstance(value, dict):  # the names of measures are looked up, so both the names and others
        return {
            **{key: poisoned(item, words) for key, item in value.items()},
            words: poisoned(next(iter(value.values()), 0), words),
        }
    if isinstance(value, (tuple, list)):
        return type(value)(poisoned(item, words) for item in value)
    return value


def one_by_one(value: Any, words: str) -> Iterator[Any]:
    """The record once for each string in it, with that one replaced."""
    if isinstance(value, str):
        yield words
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            if field.init:
                yield from (replace(value, **{field.name: x}) for x in one_by_one(getattr(value, field.name), words))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield {(words if other == key else other): x for other, x in value.items()}
            yield from ({**value, key: x} for x in one_by_one(item, words))
    elif isinstance(value, (tuple, list)):
        for i, item in enumerate(value):
            yield from (type(value)([*value[:i], x, *value[i + 1 :]]) for x in one_by_one(item, words))


class Structure(HTMLParser):
    """Elements with the names of their attributes, without what only shows blanks."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.comments = 0
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if dict(attrs).get("class") != "gap":
            self.elements.append((tag, tuple(name for name, _ in attrs)))

    def handle_comment(self, data: str) -> None:
        self.comments += 1


def check_html(page: str) -> None:
    found = Structure(page)
    assert {tag for tag, _ in found.elements} <= TAGS
    names = {name for name, _ in found.attributes}
    assert not names & {"src", "href", "action", "style", "srcset", "srcdoc"}
    assert not [name for name in names if name.startswith("on")]
    assert sum(tag == "meta" for tag, _ in found.elements) == 4
    assert sum(tag == "style" for tag, _ in found.elements) == 1
    assert found.comments == 0
    assert printable(page, keep="\n") == page, "something that is not seen"
    page.encode()


def check_markdown(text: str, headings: list[str]) -> None:
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    shown = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    assert shown == headings
    assert not {token.type for token in tokens} & {
        "html_block",
        "hr",
        "code_block",
        "blockquote_open",
        "ordered_list_open",
    }
    inline = {child.type for token in tokens for child in token.children or []}
    assert inline <= INLINE, inline
    texts = [c.content for token in tokens for c in token.children or [] if c.type == "text"]
    assert not [text for text in texts if "evil.org" in text and re.search("https?://evil|www.evil|@evil.org", text)]
    for start, row in ((i, token.map) for i, token in enumerate(tokens) if token.type == "table_open" and token.map):
        lines = text.split("\n")[row[0] : row[1]]
        cells = sum(token.type == "th_open" for token in tokens[start : start + 3 + 3 * lines[0].count("|")])
        assert cells <= lines[0].count("|")
    assert printable(text, keep="\n\t") == text
    text.encode()


def check_terminal(shown: Any) -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="truecolor", legacy_windows=False)
    console.print(shown)
    written = console.file.getvalue()
    ours = re.sub(r"\x1b\[[0-9;]*m", "", written)  # rich's own colours
    assert "\x1b" not in ours
    assert printable(ours, keep="\n") == ours
    assert "\x1b]8" not in written, "a link"
    written.encode()


def check(report: Any, headings: list[str]) -> None:
    check_html(report.to_html())
    check_markdown(report.to_markdown(), headings)
    check_terminal(report)
    assert len(repr(report)) < 1200
    assert printable(repr(report), keep="\n") == repr(report)
    assert len(repr(report).splitlines()) <= 12


HEADINGS = ["The prompt", "Verdict", "Scores", "Tokens", "Where this comes from"]


@pytest.mark.parametrize("words", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("name", ["good", "soft"])
def test_no_string_gets_out_of_its_place(name: str, words: str, request: pytest.FixtureRequest) -> None:
    report: PromptReport = poisoned(request.getfixturevalue(name), words)
    assert report.reading.text == report.verdicts[0].answer == report.scrutability.measures["nll"].better == words
    check(report, HEADINGS)
    plain = poisoned(request.getfixturevalue(name), "words")
    if words.strip():
        assert Structure(report.to_html()).elements == Structure(plain.to_html()).elements


@pytest.mark.parametrize("name", ["good", "soft"])
def test_every_single_field_is_escaped(name: str, request: pytest.FixtureRequest) -> None:
    count = 0
    for report in one_by_one(request.getfixturevalue(name), POLYGLOT):
        check_html(report.to_html())
        check_markdown(report.to_markdown(), HEADINGS)
        count += 1
    assert count > 50


@pytest.mark.parametrize("words", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_strings_are_stored_and_read_back(words: str, good: PromptReport, tmp_path: Any) -> None:
    report = poisoned(good, words)
    report = replace(report, verdicts=good.verdicts, reading=replace(report.reading, position="start"))
    folder = report.save(tmp_path / "report")
    assert PromptReport.load(folder) == report
    assert (
        printable((folder / "prompt_report.json").read_text(), keep="\n") == (folder / "prompt_report.json").read_text()
    )


@pytest.mark.parametrize("words", HOSTILE, ids=range(len(HOSTILE)))
def test_comparisons_escape_as_well(words: str) -> None:
    sure = Estimate(0.1, 0.01, 50)
    prompts = (
        ComparedPrompt("a", "TEXT", "b", False, sure, sure, 3.0, 0.5, True),
        ComparedPrompt("c", "d", "", True, sure, sure),
    )
    data = PromptComparison(prompts, (PromptDifference("a", "c", sure, sure),), 50, 1, 0.95, {"e": "f"})
    check(poisoned(data, words), [])


def test_a_report_with_wrong_types_is_refused_in_words(good: PromptReport) -> None:
    """Every value in turn replaced by one of another type: a report, or a `ValueError` that names the place."""
    plain = json.loads(json.dumps(good.to_dict()))
    refused: list[str] = []
    kept: list[PromptReport] = []
    for wrong in (POLYGLOT, 7, -1.5, True, None, [], {}, [POLYGLOT], {"a": 1}):
        for broken in swapped(plain, wrong):
            try:
                found = PromptReport.from_dict(broken)
            except ValueError as error:
                refused.append(str(error))
            else:
                kept.append(found)
    for found in kept[::5]:  # a page takes 10 ms
        check_html(found.to_html())
    assert len(refused) > 500
    assert not [message for message in refused if printable(message) != message]


def swapped(value: Any, wrong: Any) -> Iterator[Any]:
    yield wrong
    if isinstance(value, dict):
        for key, item in value.items():
            yield from ({**value, key: x} for x in swapped(item, wrong))
    elif isinstance(value, list):
        for i, item in enumerate(value[:2]):
            yield from ([*value[:i], x, *value[i + 1 :]] for x in swapped(item, wrong))
