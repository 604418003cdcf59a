"""Texts that show what a prompt does: the rows' frame, and rows, with the prompt's own answers."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from peft_interp import PromptExplanation, embedded, explain_prompt
from peft_interp.explain.demonstrations import common_ending, demonstrations, shown_answers
from peft_interp.report.explained import IDLE

Build = Callable[..., Any]
TASK = embedded.TASKS["sentiment"]


def test_the_ending_is_the_words_that_all_share() -> None:
    assert common_ending(["a good film. It was", "a bad\nfilm. It was"]) == "film. It was"
    assert common_ending(["rag It was", "flag It was"]) == "It was"  # not the letters of half a word
    assert common_ending(["one", "two"]) == common_ending(["", "two"]) == ""


def test_frames_come_first_then_rows_each_answer_as_often() -> None:
    rows = [("a fine film. It was", "great"), ("a dull play. It was", "terrible"), ("lovely. It was", "great")]
    made = list(demonstrations(rows, Random(0)))
    frames, full = made[:24], made[24:]
    assert not any("film" in text or "play" in text for text in frames)
    assert {"It was great It was terrible ", "It was great\nIt was terrible\n"} & set(frames)
    assert all(text.count("great") == text.count("terrible") for text in frames)
    assert all("a dull play. It was terrible\n" in text for text in full)
    assert {text.count("\n") for text in full} == {2, 3}
    assert all(text.count("great\n") == 1 for text in full[-2:])
    assert not list(demonstrations([], Random(0)))


def test_answers_are_the_prompts_own_not_the_labels(turned: Any, target_of: Build, tokenizer: Any) -> None:
    target = target_of(turned)
    words = dict(zip(TASK.label_token_ids(tokenizer), TASK.label_words, strict=True))
    gold = [words[row.labels[row.first]] for row in target.rows]
    shown = shown_answers(target)
    assert all(asked.endswith(" It was") for asked, _ in shown)
    wrong = sum(answer != label for (_, answer), label in zip(shown, gold, strict=True))
    assert wrong >= 6  # of 8: it was trained to turn them around


def test_an_answer_of_several_tokens_is_shown_whole(target_of: Build, planted: Build, tokenizer: Any) -> None:
    target = target_of(planted(), 4)
    ids = tokenizer.encode(" great film")
    assert len(ids) > 1
    rows = [
        type(row)(row.leading, (*row.ids[: row.first], *ids), (-100,) * row.first + tuple(ids)) for row in target.rows
    ]
    places = [[row.first, row.first + 1] for row in rows]
    wanted = target.prompt.new_full((2 * len(rows), target.prompt.shape[1]), -30.0)
    for number in range(len(rows)):
        wanted[2 * number, ids[0]] = wanted[2 * number + 1, ids[1]] = 0.0
    several = type(target)(target.setup, rows, places, wanted, wanted, target.owners, target.batches)
    assert [answer for _, answer in shown_answers(several)] == [tokenizer.decode(ids[:2]).strip()] * 4


@pytest.fixture(scope="module")
def found(turned: Any, tokenizer: Any, rows: Any) -> PromptExplanation:
    return explain_prompt(turned, tokenizer, rows, TASK, sources=["demonstrations"], budget=400, longest=48)


def test_rows_with_turned_answers_are_among_the_candidates(found: PromptExplanation) -> None:
    assert {one.source for one in found.candidates} == {"demonstrations"}
    assert found.reason != IDLE
    assert any("It was" in one.text and "\n" in one.text.strip() for one in found.candidates)
    for shown in (found.to_text(160), found.to_markdown(), found.to_html()):
        assert "demonstrations" in shown
