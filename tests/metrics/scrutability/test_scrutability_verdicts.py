"""What is called readable: prompts people write, and none of the ways in which prompts fool perplexity."""

from __future__ import annotations

import random
from typing import Any

import pytest

from peft_interp.metrics.references import human_prompts
from peft_interp.metrics.scrutability import measure_scrutability
from peft_interp.text.token_filter import allowed_tokens

UNREADABLE = [
    " film film film film film film film film",
    " students magazine magazine magazine magazine magazine magazine approved",
    " magazine magazine magazine magazine magazine magazine approved of",
    " author magazine magazine approved approved approved approved attitude",
    " magazine viewing verdict verdict negative knows negative classic",
    "<|endoftext|><|endoftext|><|endoftext|>",
    "\n\n\n\n\n\n\n\n",
    "Copyright © 2019 All rights reserved.",
    "Click here to subscribe to our newsletter.",
    "............................",
    " great terrible great terrible great terrible",
    " ingtion mently ousness pre ent ish",
]
NEW_PROMPTS = [
    "Is this film review positive or negative?",
    "Decide whether the critic liked the film.",
    "Read the review and say what the writer thinks.",
    "Which topic does this news item belong to?",
    "Tell me if the person enjoyed the movie.",
    "Classify the sentiment of the following text.",
]


@pytest.mark.parametrize("text", UNREADABLE)
def test_prompts_that_fool_perplexity_are_not_readable(model: Any, tokenizer: Any, text: str) -> None:
    assert not measure_scrutability(model, tokenizer, text, label_words=(" great", " terrible")).readable


@pytest.mark.parametrize(
    "text",
    [
        " of the film of the film of the film",
        "I want you to act as I want you to act as I want you to act as",
        "............................",
        "\n\n\n\n\n\n\n\n",
    ],
)
def test_some_of_them_are_likelier_than_most_human_prompts(model: Any, tokenizer: Any, text: str) -> None:
    """Without these the controls would prove nothing about perplexity: here it is low and the score is high."""
    result = measure_scrutability(model, tokenizer, text)
    assert result.measures["nll"].percentile > 50
    assert not result.readable


def test_new_prompts_that_people_would_write_are_readable(model: Any, tokenizer: Any) -> None:
    found = {text: measure_scrutability(model, tokenizer, text) for text in NEW_PROMPTS}
    assert [text for text, result in found.items() if not result.readable] == []


def test_human_prompts_are_readable_and_random_words_are_not(model: Any, tokenizer: Any) -> None:
    sample = human_prompts()[::5]
    human = [measure_scrutability(model, tokenizer, text) for text in sample]
    assert sum(result.readable for result in human) >= 0.9 * len(human)
    words = allowed_tokens(model.get_input_embeddings().weight, tokenizer, "words").nonzero().flatten().tolist()
    rng = random.Random(0)
    salad = [measure_scrutability(model, tokenizer, None, ids=rng.choices(words, k=8)) for _ in range(40)]
    assert not any(result.readable for result in salad)


def test_a_single_token_is_nothing_to_judge(model: Any, tokenizer: Any) -> None:
    result = measure_scrutability(model, tokenizer, " film")
    assert not result.readable
    assert result.score != result.score  # NaN
    assert "too_short" in {flag.name for flag in result.flags}


def test_an_empty_prompt_is_not_readable(model: Any, tokenizer: Any) -> None:
    assert not measure_scrutability(model, tokenizer, "").readable
