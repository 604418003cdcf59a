"""The HTML page: well-formed, self-contained, and nothing in a prompt gets out of its place."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from peft_interp.metrics.answer_results import AnswerShares
from peft_interp.metrics.results import Performance
from peft_interp.report import QUESTIONS, PromptReport, Rival, render_html
from peft_interp.report.charts import mark, perplexity_strip, position
from peft_interp.report.page_sections import SECTIONS
from peft_interp.report.templating import TEMPLATES

Build = Callable[..., Any]
VOID = {"meta", "br", "img", "link", "input", "hr"}
PAGES = ["good", "soft", "hostile"]


class Page(HTMLParser):
    """Checks the nesting and keeps elements, attributes and texts."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.texts_of: dict[str, list[str]] = {}
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        for tag in set(self.open):
            self.texts_of.setdefault(tag, []).append(data)


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param).to_html()


def test_the_page_is_well_formed_and_needs_nothing_else(page: str) -> None:
    parsed = Page(page)
    names = {name for name, _ in parsed.elements}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "foreignobject"}
    for _, attributes in parsed.elements:
        assert not set(attributes) & {"src", "href", "srcset", "xlink:href", "action", "style"}
        assert not any(name.startswith("on") for name in attributes)
    style = "".join(parsed.texts_of["style"])
    assert "url(" not in style
    assert "@import" not in style
    policy = next(a["content"] for name, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_a_reader_who_does_not_see_it_is_served(page: str) -> None:
    parsed = Page(page)
    levels = [int(name[1]) for name, _ in parsed.elements if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    for name, attributes in parsed.elements:
        if name == "svg":
            assert attributes.get("aria-hidden") == "true" or (attributes["role"] == "img" and attributes["aria-label"])
        if name == "th":
            assert attributes["scope"] in ("col", "row", "rowgroup")
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {attributes["aria-labelledby"] for name, attributes in parsed.elements if name == "section"} <= set(ids)


def test_a_hostile_prompt_stays_text(hostile: PromptReport) -> None:
    parsed = Page(hostile.to_html())
    heading = "".join(parsed.texts_of["blockquote"])
    assert "<script>alert('x')</script>" in heading
    assert "\\u202e" in heading
    assert "\u202e" not in hostile.to_html()
    labels = [attributes.get("aria-label") or "" for _, attributes in parsed.elements]
    assert any('"><script>' in label for label in labels)


def test_the_page_says_what_the_report_holds(soft: PromptReport) -> None:
    said = " ".join("".join(Page(soft.to_html()).texts).split())
    for verdict in soft.verdicts:
        assert verdict.words[1:] in said
    assert "harmless" in said
    assert "near2" in said
    assert "0 if the text is the prompt" in said


def test_marks_differ_in_shape_and_carry_a_word(soft: PromptReport, good: PromptReport) -> None:
    shapes = {re.sub(r'fill="[^"]*"|stroke="[^"]*"', "", mark(answer)) for answer in ("yes", "partly", "no", "unknown")}
    assert len(shapes) == 4
    assert "</svg>No</span>" in soft.to_html()
    assert "</svg>Yes</span>" in good.to_html()


def test_a_report_without_data_has_no_empty_pictures(reading: Build, judged: Build, report_of: Build) -> None:
    page = report_of(reading(distance=0.9), judged()).to_html()
    assert "What it does" not in page
    assert "Accuracy against readability" not in page
    assert "How it reads" in page
    Page(page)


def test_accuracy_against_readability_has_every_rival(good: PromptReport) -> None:
    page = good.to_html()
    assert all(f">{rival.name}</text>" in page for rival in good.rivals)
    assert "prompts people wrote" in page
    assert "soft prompt: accuracy 0.79, log-perplexity 8.8" in page


def test_labels_of_crowded_rivals_do_not_overlap() -> None:
    rivals = [(f"rival number {i}", 4.0 + i / 50, 0.75) for i in range(6)]
    picture = position((4.0, 0.75), rivals, 3.0, 0.5)
    placed = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)"[^>]*>((?:rival|this)[^<]*)<', picture)
    boxes = []
    for x, y, anchor, text in placed:
        left = float(x) - (6.4 * len(text) if anchor == "end" else 0)
        boxes.append((left, float(y), left + 6.4 * len(text)))
    assert len(boxes) == 7
    for i, (left, base, right) in enumerate(boxes):
        for other_left, other_base, other_right in boxes[i + 1 :]:
            assert right <= other_left or other_right <= left or abs(base - other_base) >= 13


@pytest.mark.parametrize("name", PAGES)
def test_a_notebook_gets_every_verdict_and_the_page_in_a_closed_frame(
    name: str, request: pytest.FixtureRequest
) -> None:
    report = request.getfixturevalue(name)
    parsed = Page(report._repr_html_())
    assert {name for name, _ in parsed.elements} == {"div", "p", "b", "span", "details", "summary", "iframe"}
    frame = next(attributes for name, attributes in parsed.elements if name == "iframe")
    assert frame["sandbox"] == ""
    assert frame["srcdoc"] == report.to_html()
    said = "".join(parsed.texts)
    assert all(QUESTIONS[verdict.question] in said for verdict in report.verdicts)
    looks = [attributes.get("style") or "" for name, attributes in parsed.elements if name != "iframe"]
    assert not [look for look in looks if re.search("[^-]height:|overflow:", look)]


def test_rivals_that_are_no_numbers_are_left_out(good: PromptReport) -> None:
    page = replace(good, rivals=(Rival("broken", float("nan"), 3.0),)).to_html()
    assert "broken" not in page
    assert "nan" not in page


def test_answers_are_drawn_where_they_are_known(good: PromptReport, soft: PromptReport) -> None:
    said = " ".join(" ".join(Page(good.to_html()).texts).split())
    assert "terrible answer of 48% of the rows as prompt 41% as text 40% no prompt 78%" in said
    assert "great answer of 52% of the rows as prompt 59% as text 60% no prompt 22%" in said
    unknown = replace(good, faithfulness=replace(good.faithfulness, answers=None, answered=None)).to_html()
    assert '<h3 class="apart">Answers</h3>' not in unknown
    assert "Which rows it answers" not in unknown


def test_right_and_given_answers_are_counted_for_each_side(good: PromptReport, soft: PromptReport) -> None:
    said = " ".join(" ".join(Page(soft.to_html()).texts).split())
    assert "As prompt right answer terrible great terrible 80 20 great 18 82" in said
    assert "As text right answer terrible great terrible 96 4 great 92 8" in said
    assert "No prompt right answer terrible great terrible 92 8 great 92 8" in said
    assert "Prompt and text answer 90 of 200 rows differently, prompt and no prompt 86 of 200." in said
    one = " ".join(" ".join(Page(good.to_html()).texts).split())
    assert "As prompt and as text right answer terrible great terrible 84 18 great 22 76" in one
    assert "No prompt right answer terrible great no single one terrible 82 20 0 great 70 18 10" in one


def test_rows_are_shown_with_what_each_side_answers(soft: PromptReport) -> None:
    page = soft.to_html()
    assert page.count('<p class="input">') == len(soft.faithfulness.answered.examples) == 6
    said = " ".join(" ".join(Page(page).texts).split())
    assert "It was right answer great as prompt great as text terrible no prompt terrible row 0" in said


def test_no_is_as_visible_as_yes(soft: PromptReport, good: PromptReport) -> None:
    style = (TEMPLATES / "page.css").read_text()
    looks = dict(re.findall(r"\.answer\.(yes|no) \{([^}]*)\}", style))
    assert looks["no"].replace("--no", "--yes") == looks["yes"]
    assert "background" in looks["no"]
    for report in (soft, good):
        shown = re.findall(r'<li><span class="answer (\w+)">', report.to_html())
        assert shown[-len(report.verdicts) :] == [verdict.answer for verdict in report.verdicts]


def test_every_section_has_a_heading_and_can_be_left_out(good: PromptReport, monkeypatch: pytest.MonkeyPatch) -> None:
    headings = [section.title for section in SECTIONS if section.name != "explained"]  # nobody looked for a text
    assert re.findall(r'<h2 id="[a-z]+">([^<]*)</h2>', good.to_html()) == ["Verdict", *headings]
    facts = SECTIONS[-1]
    more = [*SECTIONS[:-1], replace(facts, title="<One> more", content=lambda report: [("a", report.reading.text)])]
    monkeypatch.setattr(render_html, "SECTIONS", more)
    assert '<h2 id="origin">&lt;One&gt; more</h2>' in good.to_html()
    monkeypatch.setattr(render_html, "SECTIONS", [replace(facts, content=lambda report: None)])
    assert re.findall(r'<h2 id="[a-z]+">([^<]*)</h2>', good.to_html()) == ["Verdict"]


def test_many_label_words_are_cut_to_those_answered_most(good: PromptReport) -> None:
    shares = tuple((i + 1) / 210 for i in range(20))
    names = tuple(f" <b>{i}</b>" for i in range(20))
    many = AnswerShares(tuple(range(20)), names, shares, shares, shares)
    page = replace(good, faithfulness=replace(good.faithfulness, answers=many)).to_html()
    parsed = Page(page)
    assert sum(name == "h4" for name, _ in parsed.elements) == 8
    assert "The 8 of 20 that the prompt answers most" in page
    assert "<b>19" not in page
    assert "&lt;b&gt;19" in page


def test_both_distances_stand_beside_what_is_usual(soft: PromptReport) -> None:
    page = " ".join("".join(Page(soft.to_html()).texts).split())
    assert "cosine 0.93" in page
    assert "euclidean 1.86" in page
    assert "(0.55 and 1.20)" in page
    for shown in (soft.to_html(), soft.to_markdown(), soft.to_text()):
        assert "token to token 1.20" in shown


def test_vectors_and_their_text_both_stand_in_the_picture(soft: PromptReport, good: PromptReport) -> None:
    """The log-perplexity is the text's, and the accuracy there is not the vectors'."""
    page = soft.to_html()
    assert ">its text</text>" in page
    assert ">its vectors</text>" in page
    assert ">this prompt</text>" not in page
    assert "its vectors: accuracy 0.81; its text: accuracy 0.52, log-perplexity 3.1" in page
    assert ">its text</text>" not in good.to_html()
    assert ">this prompt</text>" in good.to_html()


def test_the_line_of_perplexities_has_one_scale() -> None:
    heads = [re.search(r'<path d="M([\d.]+) 44', perplexity_strip(value, [])) for value in (1.0, 100.0, 1e5, 1e9)]
    assert [float(head.group(1)) for head in heads] == pytest.approx([34.0, 182.8, 406.0, 406.0])


def test_numbers_without_a_place_are_not_drawn(good: PromptReport) -> None:
    """A stranger's accuracy of 1e300 would draw as many lines."""
    page = replace(good, rivals=(Rival("huge", 1e300, 3.0), Rival("far", 0.5, 1e300))).to_html()
    assert ">huge<" not in page
    assert ">far<" not in page


def test_bars_have_one_scale_in_every_report(good: PromptReport) -> None:
    """A KL of 0.25 nats fills half of its bar, whatever the other tokens do."""
    effects = tuple(replace(effect, kl=0.25) for effect in good.faithfulness.token_effects)
    page = replace(good, faithfulness=replace(good.faithfulness, token_effects=effects)).to_html()
    assert page.count('<rect width="50.00" height="10" fill="var(--accent)"/>') >= len(effects)


def test_the_first_line_is_the_conclusion(good: PromptReport, soft: PromptReport) -> None:
    assert "".join(Page(good.to_html()).texts_of["h1"]) == (
        "The text is the prompt, a person can read it, and it helps the task."
    )
    assert "".join(Page(soft.to_html()).texts_of["h1"]) == (
        "Its nearest tokens do not explain this soft prompt, a person cannot read them, and it helps the task."
    )


def test_a_soft_prompt_is_never_said_to_be_its_text(
    reading: Build, judged: Build, measured: Build, report_of: Build
) -> None:
    report = report_of(reading(distance=0.3), judged(), measured(cosine_distance=0.3, euclidean_distance=0.6))
    assert report.verdict("faithful").answer == "yes"
    page = report.to_html()
    assert "<span>the text does what the prompt does</span>" in page
    assert "<span>the text is the prompt</span>" not in page
    assert "Its nearest tokens do what this soft prompt does" in "".join(Page(page).texts_of["h1"])


def test_no_attribute_is_nan(good: PromptReport, judged: Build) -> None:
    """A score without reference levels is NaN while the perplexity is not; so is a loss of no label."""
    nan = float("nan")
    assert good.faithfulness is not None
    behaviour = replace(good.faithfulness, without=Performance(nan), answers=None)
    report = replace(good, scrutability=judged(False, nan, None), faithfulness=behaviour)
    page = report.to_html()
    assert "22" in page
    assert not re.search(r'="nan"', page)
    assert ">nan<" not in page
    assert "Perplexity</h3>" in page
    for shown in (report.to_markdown(), report.to_text()):
        assert "nan" not in shown.lower().split()


def test_a_loss_at_other_labels_is_said_to_be_one(good: PromptReport) -> None:
    behaviour = replace(
        good.faithfulness, as_prompt=Performance(8.02), as_text=Performance(8.02), without=Performance(6.76),
        as_prompt_shared=Performance(5.1), answers=None,
    )  # fmt: skip
    report = replace(good, faithfulness=behaviour)
    assert "does not count; without it the loss as prompt is 5.10" in report.to_html()
    assert "as prompt 5.10 at the same tokens" in report.to_markdown()
