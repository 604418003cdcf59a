"""Text after other text: one at a time and many at once give the same ids and the same texts."""

from __future__ import annotations

from typing import Any

from peft_interp.text.tokenization import (
    adds_bos,
    decode_after,
    encode_after,
    encode_all,
    encode_all_after,
    ids_around_text,
    leading_ids,
    token_texts,
)


def test_many_texts_at_once_are_each_text_by_itself(tokenizer: Any) -> None:
    texts = [" great", " The film was dull", "", " a"]
    assert encode_all_after(tokenizer, texts) == [encode_after(tokenizer, text) for text in texts]
    assert encode_all(tokenizer, texts) == [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    assert encode_all(tokenizer, []) == encode_all_after(tokenizer, []) == []


def test_a_text_that_melts_is_none_among_many(byte_tokenizer: Any) -> None:
    assert encode_all_after(byte_tokenizer, ["s", " great"]) == [None, encode_after(byte_tokenizer, " great")]


def test_a_tokens_text_has_the_blank_it_begins_with(tokenizer: Any) -> None:
    ids = encode_after(tokenizer, " The film was great")
    assert "".join(token_texts(tokenizer, ids)) == decode_after(tokenizer, ids) == " The film was great"
    assert token_texts(tokenizer, ids) == [decode_after(tokenizer, [i]) for i in ids]
    assert token_texts(tokenizer, []) == []


def test_what_a_tokenizer_puts_around_a_text(tokenizer: Any) -> None:
    front, after = ids_around_text(tokenizer)
    inside = tokenizer.encode("The film", add_special_tokens=False)
    assert tokenizer.encode("The film") == [*front, *inside, *after]
    assert leading_ids(tokenizer) == front
    assert adds_bos(tokenizer) == (front[:1] == [tokenizer.bos_token_id])
