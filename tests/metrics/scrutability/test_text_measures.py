"""Measures of strings: hand-counted values, and what each must not be fooled by."""

from __future__ import annotations

from typing import Any

import pytest

from peft_interp.metrics import text_metrics as measures
from peft_interp.text.tokenization import token_texts

LOOP = [" film", " Film", " FILM", " plot"]


def test_repetition_counts_tokens_that_came_before_whatever_their_case() -> None:
    assert measures.repetition(LOOP) == 0.5
    assert measures.repetition([]) == 0.0


def test_repetition_penalty_is_flrts() -> None:
    assert measures.repetition_penalty(LOOP) == pytest.approx((3 - 1) ** 1.5 / 4)


def test_distinct_counts_different_n_grams() -> None:
    assert measures.distinct(LOOP, 1) == 0.5
    assert measures.distinct(LOOP, 2) == pytest.approx(2 / 3)
    assert measures.distinct([" film"], 2) == 1.0


def test_tokens_in_turn_are_recent_repeats_and_marks_are_not() -> None:
    assert measures.recent_repeats(["a", "b", "a", "b"]) == [2, 3]
    assert measures.recent_repeats([",", "a", ",", "b"]) == []


def test_tokens_that_show_nothing_are_blank() -> None:
    assert measures.blank_share([" ", "\n\n", "\u200b", "\x07", " film", ""]) == pytest.approx(5 / 6)


def test_marks_are_punctuation_and_blanks_are_not() -> None:
    assert measures.punctuation_share(["?!", " -", " ", " a"]) == 0.5


def test_whole_words_are_not_pieces() -> None:
    assert measures.whole_word_share([" film", " un", "watch", "able", "."]) == 0.25
    assert measures.whole_word_share(["Is", " it", " good", "?"]) == 1.0
    assert measures.whole_word_share(["1", "?"]) == 0.0


def test_words_keep_their_apostrophe() -> None:
    assert measures.words_of("Don't, 12 film-makers!") == ["Don't", "film", "makers"]


def test_chinese_is_split_by_character_and_english_is_not() -> None:
    assert measures.units_of("好好 Good 12") == ["好", "好", "good", "12"]


def test_ascii_share_counts_characters() -> None:
    assert measures.ascii_share("aб") == 0.5


def test_copied_runs_are_found_across_case_and_marks() -> None:
    training = ["It was THE best, of times and more.", "unrelated"]
    assert measures.longest_copied("Say: the best of times", training) == 4
    assert measures.copied_share("Say: the best of times", training) == 0.0
    assert measures.copied_share("Say it was the best of times", training) == pytest.approx(6 / 7)


def test_a_word_inside_another_is_not_copied() -> None:
    assert measures.longest_copied("art", ["a party"]) == 0


def test_label_words_leak_as_words_only() -> None:
    assert measures.leaked_labels("A Great film", [" great", " terrible"]) == [" great"]
    assert measures.leaked_labels("The greatest", [" great"]) == []


def test_pieces_show_the_blank_and_join_to_the_text(tokenizer: Any) -> None:
    text = "Is this film review positive?"
    pieces = token_texts(tokenizer, tokenizer.encode(text))
    assert "".join(pieces) == text
    assert " film" in pieces
