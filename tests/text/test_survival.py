"""Whether a prompt's text is tokenised to the prompt again, in the place where it stands."""

from __future__ import annotations

from typing import Any

import torch

from peft_interp.text.token_filter import allowed_tokens
from peft_interp.text.tokenization import decode_after, survives


def pieces(tokenizer: Any, *tokens: str) -> list[int]:
    ids = tokenizer.convert_tokens_to_ids(list(tokens))
    assert None not in ids
    return ids


def test_a_text_that_was_tokenised_survives(tokenizer: Any) -> None:
    ids = tokenizer.encode("The film was great", add_special_tokens=False)
    assert survives(tokenizer, ids)
    assert survives(tokenizer, ids, " The plot")


def test_pieces_that_melt_together_do_not_survive(byte_tokenizer: Any) -> None:
    whole = byte_tokenizer.encode(" great", add_special_tokens=False)
    assert len(whole) == 1
    assert not survives(byte_tokenizer, pieces(byte_tokenizer, "Ġ", "great"[0], *"reat"))
    assert survives(byte_tokenizer, whole)


def test_what_follows_decides(byte_tokenizer: Any) -> None:
    ids = pieces(byte_tokenizer, "Ġgreat")
    assert survives(byte_tokenizer, ids, " film")
    assert not survives(byte_tokenizer, ids[:-1] + pieces(byte_tokenizer, "Ġ"), "great")


def test_half_of_a_character_does_not_survive(byte_tokenizer: Any) -> None:
    ids = byte_tokenizer.encode("é", add_special_tokens=False)
    assert len(ids) == 2
    assert survives(byte_tokenizer, ids)
    assert not survives(byte_tokenizer, ids[:1])


def test_what_stands_in_front_decides_for_a_prompt_at_the_end(byte_tokenizer: Any) -> None:
    ids = pieces(byte_tokenizer, "Ġgreat")
    assert survives(byte_tokenizer, ids, " film", preceding_text="The film was")
    tail = byte_tokenizer.encode("great", add_special_tokens=False)
    assert survives(byte_tokenizer, tail, " film")
    assert not survives(byte_tokenizer, tail, " film", preceding_text="The film was ")  # the blank melts into it


def test_survival_after_a_text_agrees_with_a_person_who_copies_it(tokenizer: Any) -> None:
    usable = allowed_tokens(torch.ones(len(tokenizer), 2), tokenizer, "printable").nonzero().flatten()
    front = tokenizer("The film was dull")["input_ids"]
    answers = set()
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        length = int(torch.randint(1, 4, (), generator=generator))
        ids = usable[torch.randint(len(usable), (length,), generator=generator)].tolist()
        text = tokenizer.decode([*front, *ids], skip_special_tokens=True)
        same = tokenizer(text + " great")["input_ids"][: len(front) + length] == [*front, *ids]
        assert survives(tokenizer, ids, " great", preceding_text="The film was dull") == same
        assert text == "The film was dull" + decode_after(tokenizer, ids)
        answers.add(same)
    assert answers == {True, False}


def test_survival_agrees_with_a_person_who_copies_the_text(tokenizer: Any) -> None:
    """Random prompts: the answer is what decoding and encoding by hand gives, and both answers occur."""
    usable = allowed_tokens(torch.ones(len(tokenizer), 2), tokenizer, "printable").nonzero().flatten()
    answers = set()
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        length = int(torch.randint(1, 4, (), generator=generator))
        ids = usable[torch.randint(len(usable), (length,), generator=generator)].tolist()
        row = tokenizer(tokenizer.decode(ids) + " The film")["input_ids"]
        row = row[1:] if row[0] == tokenizer.bos_token_id else row
        assert survives(tokenizer, ids, " The film") == (row[:length] == ids)
        answers.add(survives(tokenizer, ids, " The film"))
    assert answers == {True, False}
