"""The Markdown form: tables keep their columns, texts stay texts."""

from __future__ import annotations

import re

import pytest

from peft_interp.report import PromptReport


def tables(text: str) -> list[list[str]]:
    return [block.split("\n") for block in text.split("\n\n") if block.startswith("|")]


@pytest.mark.parametrize("name", ["good", "soft", "hostile"])
def test_every_row_of_a_table_has_its_columns(name: str, request: pytest.FixtureRequest) -> None:
    text = request.getfixturevalue(name).to_markdown()
    assert len(tables(text)) >= 3
    for table in tables(text):
        assert {line.count("|") for line in table} == {table[0].count("|")}


def test_a_hostile_prompt_brings_no_markup(hostile: PromptReport) -> None:
    text = hostile.to_markdown()
    fence = re.search(r"^(`{3,})text$", text, re.MULTILINE)
    assert fence is not None
    block, outside = text.split(f"\n{fence[1]}\n", 1)
    assert "<script>" in block
    assert "<" not in outside
    assert "](" not in re.sub("`[^`]+`", "", outside)
    assert "\u202e" not in text
    assert "# Title" not in outside


def test_the_prompt_stands_in_front_as_it_is(good: PromptReport) -> None:
    assert good.to_markdown().startswith("## The prompt\n\n```text\n Is this film good?\n```\n")


def test_heading_levels(good: PromptReport) -> None:
    headings = re.findall(r"^#+ ", good.to_markdown(heading_level=3), re.MULTILINE)
    assert headings[0] == "### "
    assert set(headings[1:]) == {"#### "}
    with pytest.raises(ValueError, match="`heading_level=6` must be 1 to 5"):
        good.to_markdown(heading_level=6)


def test_verdicts_and_scores_are_there(soft: PromptReport) -> None:
    text = soft.to_markdown()
    assert (
        "Does the text do what the prompt does? **No**: do not explain this soft prompt by its nearest tokens" in text
    )
    assert "| accuracy as text | 0.52 |" in text
    assert "people 3.40, shuffled 5.90, random 8.20" in text


def test_both_distances_of_a_soft_prompt_are_shown(soft: PromptReport, good: PromptReport) -> None:
    text = soft.to_markdown()
    assert "| place | token | cosine distance | euclidean distance | also near |" in text
    assert "| 3 | \N{OPEN BOX}harmless | 0.93 | 1.86 |" in text
    assert "Tokens lie 0.55 (cosine) and 1.20 (euclidean) from their nearest neighbours." in text
    assert "| euclidean distance | 3.00 | token to token 1.20 |" in text
    assert "nearest neighbours" not in good.to_markdown()
