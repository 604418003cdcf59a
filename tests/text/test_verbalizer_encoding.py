"""What the model reads is what a person would paste: prompt, template and text in one string."""

from __future__ import annotations

from typing import Any

import pytest

from peft_interp.text.tokenization import encode_after
from peft_interp.text.verbalizer import Verbalizer

WORDS = ("bad", "great")
TEMPLATES = ("{prompt} {text} It was", "{prompt}\n{text} It was", "{prompt} Review : {text}", "{text} It was")
TEXTS = ("The film was dull", "a", "", " the plot. ", "film film\nfilm {prompt} {text}")
PROMPT = "The acting"


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_prompt_and_encoded_text_are_the_pasted_text(tokenizer: Any, template: str, text: str) -> None:
    verbalizer = Verbalizer(template, WORDS)
    pasted = tokenizer(f"{verbalizer.fill(text, PROMPT)} great")["input_ids"]
    encoded = verbalizer.encode(tokenizer, text, 1)["input_ids"]
    bos = [tokenizer.bos_token_id] if pasted[0] == tokenizer.bos_token_id else []
    prompt = tokenizer.encode(PROMPT, add_special_tokens=False)
    assert encoded[: len(bos)] == bos
    assert [*bos, *prompt, *encoded[len(bos) :]] == pasted


def test_filling_reads_as_written() -> None:
    verbalizer = Verbalizer("{prompt} {text} It was", WORDS)
    assert verbalizer.fill("Dull.") == "Dull. It was"
    assert verbalizer.fill("Dull.", "Review:") == "Review: Dull. It was"
    assert verbalizer.fill("Dull.", " Review") == " Review Dull. It was"  # its blank is part of the prompt's token
    assert verbalizer.fill("Dull.", "{text}") == "{text} Dull. It was"
    assert Verbalizer("{text} It was", WORDS).fill("Dull.", "Review:") == "Review: Dull. It was"


def test_only_the_label_word_is_to_be_predicted(tokenizer: Any) -> None:
    row = Verbalizer("{prompt} {text} It was", WORDS).encode(tokenizer, "The film was dull", 0)
    bad = tokenizer.encode("The bad", add_special_tokens=False)[-1]
    assert row["labels"] == [-100] * (len(row["input_ids"]) - 1) + [bad]
    assert row["input_ids"][-1] == bad
    assert row["attention_mask"] == [1] * len(row["input_ids"])


@pytest.mark.parametrize("template", ["{prompt} {text} It was", "{prompt} Review : {text} It was", "{prompt} {text}"])
def test_cutting_takes_the_text_and_never_the_template(tokenizer: Any, template: str) -> None:
    verbalizer = Verbalizer(template, WORDS)
    text = "the film was great and the plot was terrible"
    whole = verbalizer.encode(tokenizer, text, 1)["input_ids"]
    bos = int(whole[0] == tokenizer.bos_token_id)
    shortest = bos + len(encode_after(tokenizer, " " + verbalizer.fill(""))) + 2
    before, after = verbalizer.fill("|").split("|")
    for length in range(shortest, len(whole) + 3):
        ids = verbalizer.encode(tokenizer, text, 1, max_length=length)["input_ids"]
        assert len(ids) == min(length, len(whole))
        assert ids[-1] == whole[-1]
        shown = tokenizer.decode(ids[bos:-1]).strip()
        assert shown.startswith(before.strip())
        assert shown.endswith(after.strip())
        kept = shown.removeprefix(before.strip()).removesuffix(after.strip()).strip()
        assert kept
        assert text.startswith(kept)
    assert ids == whole


@pytest.mark.parametrize("max_length", [0, 1, 5])
def test_no_room_for_text_is_an_error(tokenizer: Any, max_length: int) -> None:
    verbalizer = Verbalizer("{prompt} Review : {text} It was", WORDS)
    with pytest.raises(ValueError, match=rf"`max_length={max_length}` leaves no room for text.*allow more"):
        verbalizer.encode(tokenizer, "the film was great", 1, max_length=max_length)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{prompt} It was", r"must hold the data's columns in braces, each exactly once, and at least one"),
        ("{prompt} {text} {text}", r"must hold the data's columns in braces, each exactly once"),
        ("{prompt} {text} {}", r"must hold the data's columns in braces, each exactly once"),
        ("{prompt} {text} {label}", r"leave \{label\} out"),
        ("{prompt} {text} {prompt}", r"may hold \{prompt\} only once"),
        ("{text}{prompt}", r"or at its end, with one in front of it"),
        ("{prompt} {prompt} {text}", r"may hold \{prompt\} only once"),
        ("{prompt}{text}", r"with a blank or a line break after it"),
        ("Say {prompt}{text}", r"inside, with no letter, digit or brace beside it"),
        ("{text}{prompt} It was", r"inside, with no letter, digit or brace beside it"),
        (" {prompt} {text}", r"must part \{prompt\} from its neighbours"),
    ],
)
def test_a_template_that_cannot_work_is_refused(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Verbalizer(template, WORDS)


def test_text_after_other_text_gets_no_blank_of_its_own(piece_tokenizer: Any) -> None:
    great = piece_tokenizer.convert_tokens_to_ids("▁great")
    assert encode_after(piece_tokenizer, " great") == [great]
    assert piece_tokenizer.encode(" great", add_special_tokens=False) != [great]  # why the function exists


def test_text_that_melts_into_what_stands_before_it_is_an_error(byte_tokenizer: Any) -> None:
    assert len(byte_tokenizer.encode("act")) == 2  # "a" and "ct": nothing melts
    assert encode_after(byte_tokenizer, "ct") == byte_tokenizer.encode("act")[1:]
    with pytest.raises(ValueError, match=r"'s' is tokenised together with the word in front of it; begin it with a"):
        encode_after(byte_tokenizer, "s")


def test_a_dataset_becomes_rows_for_trainer(byte_tokenizer: Any) -> None:
    from datasets import Dataset

    verbalizer = Verbalizer("{prompt} {text} It was", WORDS)
    data = Dataset.from_list([{"review": "The film was dull", "stars": 0}, {"review": "great", "stars": 1}])
    rows = verbalizer.encode_dataset(byte_tokenizer, data, text_column="review", label_column="stars", max_length=6)
    assert set(rows.column_names) == {"input_ids", "attention_mask", "labels"}
    wanted = [verbalizer.encode(byte_tokenizer, row["review"], row["stars"], 6) for row in data]
    assert [dict(row) for row in rows] == wanted
