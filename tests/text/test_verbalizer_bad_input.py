"""Whatever is given as text, words or rows that is none is refused; nothing is labelled by accident."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from transformers import AutoTokenizer

from peft_interp import Verbalizer, classify
from peft_interp.scoring.examples import read_examples
from peft_interp.text.rows import examples

Build = Callable[..., Any]
ROWS = [{"sentence": "w10 w11", "label": 0}, {"sentence": "w12 w13", "label": 1}]


@pytest.fixture
def tokenizer(tokenizer_dir: Path) -> Any:
    return AutoTokenizer.from_pretrained(tokenizer_dir)


@pytest.fixture
def verbalizer() -> Verbalizer:
    return Verbalizer("{prompt} {text} w4", ("w5", "w6"))


@pytest.mark.parametrize(
    "words",
    [
        {"good", "bad"},
        frozenset({"good", "bad"}),
        {0: "bad", 1: "good"},
        OrderedDict(bad=0, good=1),
        iter(["bad", "good"]),
        {"bad": 0, "good": 1}.keys(),
        "bad",
        3,
        None,
        ["bad", 1],
        ["bad", None],
        ["bad", "\ud800"],
        ["bad", ["good"]],
    ],
    ids=lambda value: type(value).__name__,
)
def test_label_words_have_an_order_and_are_words(words: Any) -> None:
    with pytest.raises(ValueError, match="label_words"):
        Verbalizer("{prompt} {text} It was", words)


@pytest.mark.parametrize(
    "template", [None, 3, ["{text}"], {"{text}"}, b"{text}", "{text} \udcff"], ids=lambda value: type(value).__name__
)
def test_a_template_is_text(template: Any) -> None:
    with pytest.raises(ValueError, match="`template"):
        Verbalizer(template, ("bad", "good"))


@pytest.mark.parametrize(
    "text",
    [None, 3, 0.5, float("nan"), True, ["w10"], ("w10", "w11"), {"w10"}, b"w10", "w10 \ud83d"],
    ids=lambda value: type(value).__name__,
)
def test_only_text_is_filled_in(verbalizer: Verbalizer, tokenizer: Any, text: Any) -> None:
    with pytest.raises(ValueError, match="`text"):
        verbalizer.encode(tokenizer, text, 0)


@pytest.mark.parametrize(
    "label",
    ["1", "w7", None, 0.5, float("nan"), -1, 2, 10**30, [1], {"a": 1}, 1j],
    ids=lambda value: type(value).__name__,
)
def test_a_label_is_the_number_of_a_word(verbalizer: Verbalizer, tokenizer: Any, label: Any) -> None:
    with pytest.raises(ValueError, match="`label="):
        verbalizer.encode(tokenizer, "w10", label)


def test_streams_are_encoded_as_they_come(verbalizer: Verbalizer, tokenizer: Any) -> None:
    whole = verbalizer.encode_dataset(tokenizer, Dataset.from_list(ROWS))
    stream = verbalizer.encode_dataset(tokenizer, Dataset.from_list(ROWS).to_iterable_dataset())
    assert list(stream) == list(whole)

    def rows() -> Any:
        yield from ROWS

    from datasets import IterableDataset

    unknown = IterableDataset.from_generator(rows)  # does not know its columns
    assert list(verbalizer.encode_dataset(tokenizer, unknown)) == list(whole)


def test_splits_and_lists_are_named(verbalizer: Verbalizer, tokenizer: Any) -> None:
    splits = DatasetDict(train=Dataset.from_list(ROWS))
    with pytest.raises(ValueError, match=r"has the splits \['train'\]; encode each"):
        verbalizer.encode_dataset(tokenizer, splits)
    with pytest.raises(ValueError, match=r"is a list and must be a data set; .*Dataset.from_list"):
        verbalizer.encode_dataset(tokenizer, ROWS)


@pytest.mark.parametrize(
    "made",
    [
        lambda: (row for row in ROWS),
        lambda: iter(ROWS),
        lambda: Dataset.from_list(ROWS).to_iterable_dataset(),
        lambda: DatasetDict(train=Dataset.from_list(ROWS)),
        lambda: {"sentence": ["w10"], "label": [0]},
    ],
)
def test_rows_to_score_are_read_more_than_once(verbalizer: Verbalizer, tokenizer: Any, made: Build) -> None:
    with pytest.raises(ValueError, match=r"`train_dataset` is a .*not read in one order as often as needed"):
        read_examples(tokenizer, made(), verbalizer)
    with pytest.raises(ValueError, match="`rows` is a "):
        next(examples(made()))


@pytest.mark.parametrize(
    "texts", [{"w10", "w11"}, {"w10": 1}, frozenset({"w10"})], ids=lambda value: type(value).__name__
)
def test_texts_to_label_have_an_order(
    readable: Build, gpt2: Build, tokenizer: Any, verbalizer: Any, texts: Any
) -> None:
    with pytest.raises(ValueError, match="whose order is no order of answers"):
        classify(readable(gpt2()), tokenizer, texts, verbalizer)
