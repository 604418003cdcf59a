"""Each label has one token of its own, or an error says why not."""

from __future__ import annotations

from typing import Any

import pytest

from peft_interp.text.verbalizer import Verbalizer

TEMPLATE = "{prompt} {text} It was"


def test_a_label_is_the_word_after_a_blank(tokenizer: Any) -> None:
    wanted = [tokenizer.encode(f"The {word}", add_special_tokens=False)[-1] for word in ("bad", "great")]
    for words in (("bad", "great"), (" bad", "great ")):
        assert Verbalizer(TEMPLATE, words).label_token_ids(tokenizer) == wanted


def test_a_word_of_several_tokens_is_refused_unless_its_first_is_enough(tokenizer: Any) -> None:
    long = tokenizer.encode("The terribly", add_special_tokens=False)[1:]
    assert len(long) > 1
    with pytest.raises(ValueError, match=r"\['terribly'\] are more than one token.*`first_token=True`"):
        Verbalizer(TEMPLATE, ("terribly", "great")).label_token_ids(tokenizer)
    ids = Verbalizer(TEMPLATE, ("terribly", "great"), first_token=True).label_token_ids(tokenizer)
    assert ids[0] == long[0]


@pytest.mark.parametrize("words", [("great", "great"), ("great", "greatxq")])
def test_labels_that_share_a_token_are_refused(tokenizer: Any, words: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="share a first token; they cannot be told apart"):
        Verbalizer(TEMPLATE, words, first_token=True).label_token_ids(tokenizer)


@pytest.mark.parametrize("words", [[], ("great",), "great", ("", "great")])
def test_at_least_two_labels(words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be a list of at least two words"):
        Verbalizer(TEMPLATE, words)


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_without_a_word_is_an_error(byte_tokenizer: Any, label: int) -> None:
    """GLUE's test sets carry -1, which would silently be the last word."""
    with pytest.raises(ValueError, match=rf"`label={label}` has no word; use 0 to 1 and drop other rows"):
        Verbalizer(TEMPLATE, ("bad", "great")).encode(byte_tokenizer, "The film", label)
