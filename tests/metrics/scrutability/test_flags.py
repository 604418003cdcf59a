"""Every pattern by which prompts fool perplexity is found in its negative control, and not in prompts people wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from peft_interp.metrics.references import human_prompts

FlagsOf = Callable[..., dict[str, Any]]

CONTROLS = {
    "repetition": [
        " magazine magazine magazine approved of",
        "great Great GREAT great",
        "film review film review film review",
        "one two three one two three one two three",
        " author magazine magazine approved approved approved approved attitude",
        "很好很好很好很好",
        "7 7 7 7 7",
    ],
    "special_tokens": ["<|endoftext|><|endoftext|><|pad|>", "</s> <pad> </s> <pad>", "[CLS] film [SEP] [PAD]"],
    "blank": ["     \n\n\t  \n", "\u200b\u200b\u200b"],
    "punctuation": ["!!! ... ??? ### ---", "film ,,,,,,,,,,,, ;;;;;;"],
    "no_words": [" ingtion mently ousness pre ent ish", "xqzt", "a b c d e f", "12 345 67"],
    "boilerplate": [
        "Copyright © 2019 All rights reserved",
        "Click here to subscribe to our newsletter",
        "See https://www.example.com/index.html for more",
        "Licensed under the Apache License, Version 2.0",
        "Permission is hereby granted, free of charge, to any person",
    ],
    "mixed_scripts": ["film фильм review обзор movie кино", "revиew of the mоvie"],
    "broken_characters": ["film \ufffd\ufffd review"],
    "too_short": ["", " the"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in CONTROLS.items() for text in texts])
def test_negative_controls_are_unreadable(flags_of: FlagsOf, name: str, text: str) -> None:
    assert flags_of(text)[name].unreadable


def test_repetition_says_what_is_repeated(flags_of: FlagsOf) -> None:
    words = flags_of(" students magazine magazine magazine magazine magazine magazine approved")["repetition"].words
    assert words == "5 of 8 words repeat 'magazine'"


def test_fewer_than_three_percent_of_human_prompts_are_flagged(flags_of: FlagsOf) -> None:
    flagged = [text for text in human_prompts() if any(flag.unreadable for flag in flags_of(text).values())]
    assert len(flagged) < 0.03 * len(human_prompts())


@pytest.mark.parametrize(
    "text",
    [
        "Think step by step.",
        "Translate 'привет' to English.",
        "Is the word 'bank' used in the same sense in both sentences?",
        "Replace the <mask> token in the text with proper words.",
        "Given A, B and C, answer: A or B?",
        "Write 3 + 4 = 7 in words.",
    ],
)
def test_ordinary_prompts_with_odd_words_are_not_flagged(flags_of: FlagsOf, text: str) -> None:
    assert flags_of(text) == {}


@pytest.mark.parametrize(
    "text",
    [
        "Этот отзыв положительный или отрицательный?",
        "これは映画のレビューです。肯定的ですか?",
        "Ist diese Filmkritik positiv oder negativ?",
    ],
)
def test_another_language_is_a_remark_and_not_unreadable(flags_of: FlagsOf, text: str) -> None:
    flags = flags_of(text)
    assert set(flags) == {"language"}
    assert not flags["language"].unreadable


def test_label_words_are_a_remark(flags_of: FlagsOf) -> None:
    flags = flags_of("Say whether the film was great.", label_words=[" great", " terrible"])
    assert set(flags) == {"label_leak"}
    assert flags["label_leak"].words == "holds the label words 'great'"
    assert not flags["label_leak"].unreadable


@pytest.mark.parametrize(
    ("text", "leaks"),
    [
        ("Is this film terrible or great?", False),
        ("Great or Terrible: which is it?", False),
        ("Is this film terrible, or great, a great one?", True),
        ("Is this film great?", True),
        ("Say whether it is terrible, so-so or not.", True),
    ],
)
def test_a_prompt_that_names_its_classes_favours_none_of_them(flags_of: FlagsOf, text: str, leaks: bool) -> None:
    assert ("label_leak" in flags_of(text, label_words=[" terrible", " great"])) is leaks
    assert "label_leak" in flags_of("Is this film great?", label_words=[" great"])


def test_copied_training_text_is_found(flags_of: FlagsOf) -> None:
    training = ["The plot is thin but the actors make the most of every scene they have."]
    assert flags_of("the actors make the most of every scene they have", training_texts=training)["copied"].unreadable
    assert flags_of("Say whether the actors make the film good.", training_texts=training) == {}
