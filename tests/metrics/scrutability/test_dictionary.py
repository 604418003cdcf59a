"""Which words count as words."""

from __future__ import annotations

import math

import pytest

from peft_interp.metrics.dictionary import dictionary_share, other_language
from peft_interp.metrics.text_metrics import words_of


def test_words_are_known_in_any_case_and_with_an_apostrophe() -> None:
    assert dictionary_share(["Don’t", "FILM", "critic's", "the"]) == 1.0


@pytest.mark.parametrize("piece", ["ing", "tion", "ment", "ly", "x", "xqzt", "sh"])
def test_pieces_of_words_are_not_words(piece: str) -> None:
    assert dictionary_share([piece]) == 0.0


def test_without_words_there_is_no_share() -> None:
    assert math.isnan(dictionary_share([]))


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Schreibe eine kurze Zusammenfassung des folgenden Textes.", "de"),
        ("Décrivez les sentiments exprimés dans la phrase suivante.", "fr"),
        ("Traduce la siguiente oración al inglés, por favor.", "es"),
        ("Il film era molto bello e la storia interessante.", "it"),
        ("Geef een korte samenvatting van de volgende tekst.", "nl"),
        ("Is this film review positive or negative?", None),
        (" ing tion ment ous ence ly", None),
    ],
)
def test_other_languages_are_told_from_english_and_from_gibberish(text: str, language: str | None) -> None:
    assert other_language(words_of(text)) == language
