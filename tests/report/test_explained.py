"""An explanation as a part of a report: shown everywhere, stored without loss, and nothing of its texts is markup."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from peft_interp.report import PromptExplanation, PromptReport
from peft_interp.report.charts import layers
from peft_interp.report.explained import (
    ActivationComparison,
    ExplanationCandidate,
    ExplanationData,
    LabelShares,
    LayerLikeness,
)

Build = Callable[..., Any]
HOSTILE = "<script>alert('x')</script> | `a` [b](http://x.org)"


@pytest.fixture
def explanation() -> Build:
    """`explanation(text, shown=True)`: one with every part; not shown where it acts against the prompt."""

    def build(text: str = "Was it good?", shown: bool = True, kind: Any = PromptExplanation) -> ExplanationData:
        alignment = 0.9 if shown else -0.4
        best = ExplanationCandidate(text, "search", 0.1, 0.01, 0.8, 0.1, 0.02, 0.9, alignment, 0.95)
        likeness = [LayerLikeness(i, 1 - 0.06 * i, math.nan if not i else 0.9, 1.0, 1.0, 0.7, None) for i in range(4)]
        view = ActivationComparison(text, 20, tuple(likeness), 2, 0.9)
        labels = (LabelShares(" great", 0.7, 0.4, 0.5), LabelShares(" bad", 0.3, 0.6, 0.5))
        found: ExplanationData = kind(
            *(text if shown else None, "" if shown else "against", (best,), 0.5, 0.2, 20, 20, 100, "PROMPT_TUNING"),
            labels=labels,
            activations=view,
            context={"data": "rows"},
        )
        return found

    return build


@pytest.mark.parametrize("shown", [True, False])
def test_a_report_has_it_everywhere(soft: PromptReport, explanation: Build, shown: bool) -> None:
    report = replace(soft, explanation=explanation("Was it good?", shown))
    words = "this text does 80% of what the prompt does" if shown else "No text explains this prompt"
    for page in (report.to_html(), report.to_markdown(), report.to_text(160)):
        assert words in page
        assert "part in layer 2 of 3" in page
    assert ("act against the prompt" in report.to_text(160)) is not shown
    assert "A text that does the same" not in soft.to_html() + soft.to_markdown()


def test_it_is_stored_with_the_report(soft: PromptReport, explanation: Build) -> None:
    report = replace(soft, explanation=explanation(kind=ExplanationData))
    again = PromptReport.from_dict(json.loads(json.dumps(report.to_dict(), allow_nan=False)))
    assert again.to_html() == report.to_html()
    assert again.explanation is not None
    assert report.explanation is not None
    assert again.explanation.candidates == report.explanation.candidates
    assert math.isnan(again.explanation.activations.layers[0].answer_cka)  # type: ignore[union-attr]


def test_its_texts_are_no_markup(soft: PromptReport, explanation: Build) -> None:
    hostile = explanation(HOSTILE)
    for page in (replace(soft, explanation=hostile).to_html(), hostile.to_html()):
        assert "<script" not in page
        assert "&lt;script&gt;" in page
    for page in (replace(soft, explanation=hostile).to_markdown(), hostile.to_markdown()):
        table = next(line for line in page.splitlines() if line.startswith("| ") and "search" in line)
        assert table.count(" | ") == 7


def test_lines_by_layer_are_a_picture() -> None:
    picture = ET.fromstring(str(layers([("a", [1.0, 0.9, math.nan, 0.2]), ("b", [1.0] * 4)], 3, 0.9)))
    lines = [line for line in picture.iter("line") if line.get("stroke") == "var(--accent)"]
    assert len(lines) == 1 + 3 + 2  # the gap takes two pieces of the first; a sample of each in the legend
    assert "a: 1.00, 0.90, nan, 0.20" in picture.get("aria-label", "")
    ends = [float(line.get("y1", "")) for line in lines]
    assert all(0 <= end <= 260 for end in ends)
