"""Templates that end in the prompt: what the model reads is what a person would paste, `text prompt label`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from peft_interp.text.tokenization import decode_after, encode_after, survives
from peft_interp.text.verbalizer import Verbalizer
from peft_interp.tuner.config import InterpPromptConfig
from peft_interp.tuner.initialization import initial_ids

WORDS = ("bad", "great")
TEMPLATES = (
    "{text} {prompt}",
    "Review : {text} {prompt}",
    "{text} It was {prompt}",
    "{text}\n{prompt}",
    " {text} {prompt} ",
)
TEXTS = ("The film was dull", "a", " the plot. ", "film film\nfilm {prompt} {text}")


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_encoded_text_prompt_and_label_are_the_pasted_text(tokenizer: Any, template: str, text: str) -> None:
    verbalizer = Verbalizer(template, WORDS)
    prompt = encode_after(tokenizer, " The acting")
    shown = decode_after(tokenizer, prompt)
    assert shown == " The acting"
    pasted = tokenizer(f"{verbalizer.fill(text, shown)} great")["input_ids"]
    encoded = verbalizer.encode(tokenizer, text, 1)
    ids = encoded["input_ids"]
    assert [*ids[:-1], *prompt, ids[-1]] == pasted
    assert survives(tokenizer, prompt, " great", verbalizer.fill(text))
    assert encoded["labels"] == [-100] * (len(ids) - 1) + ids[-1:]


def test_an_empty_text_leaves_only_the_template(tokenizer: Any) -> None:
    bos = tokenizer("a")["input_ids"][: -len(tokenizer.encode("a", add_special_tokens=False))]
    (great,) = encode_after(tokenizer, " great")
    assert Verbalizer("{text} {prompt}", WORDS).encode(tokenizer, "", 1)["input_ids"] == [*bos, great]
    review = Verbalizer("Review : {text} {prompt}", WORDS).encode(tokenizer, "", 1)["input_ids"]
    assert review == [*tokenizer("Review :")["input_ids"], great]


def test_filling_reads_as_the_model_does() -> None:
    verbalizer = Verbalizer("{text} {prompt}", WORDS)
    assert verbalizer.fill("Dull.") == "Dull."
    assert verbalizer.fill(" Dull. ", " It was") == "Dull. It was"
    assert verbalizer.fill("Dull.", "ish") == "Dull.ish"  # a first token without a blank stands there without one
    assert verbalizer.fill("{prompt}", " {text}") == "{prompt} {text}"
    review = Verbalizer("Review: {text} Sentiment: {prompt}", WORDS)
    assert review.fill("Dull.") == "Review: Dull. Sentiment:"
    assert review.fill("Dull.", " quite") == "Review: Dull. Sentiment: quite"
    assert Verbalizer("{text}\n{prompt}", WORDS).fill("Dull. ", "It was") == "Dull.\nIt was"


def test_the_position_is_that_of_the_template() -> None:
    assert Verbalizer("{text} {prompt}", WORDS).prompt_position == "end"
    assert Verbalizer("{text}\n{prompt}\n", WORDS).prompt_position == "end"
    for template in ("{prompt} {text}", "{prompt} {text} It was", "{text} It was", "{text}"):
        assert Verbalizer(template, WORDS).prompt_position == "start"


@pytest.mark.parametrize("template", ["{text} {prompt}", "Review : {text} It was {prompt}", "{text}\n{prompt}"])
def test_cutting_takes_the_text_and_never_the_template(tokenizer: Any, template: str) -> None:
    verbalizer = Verbalizer(template, WORDS)
    text = "the film was great and the plot was terrible"
    whole = verbalizer.encode(tokenizer, text, 1)["input_ids"]
    bos = int(whole[0] == tokenizer.bos_token_id)
    before, after = verbalizer.fill("|").split("|")
    head = len(tokenizer.encode(before.strip(), add_special_tokens=False)) if before else 0
    tail = encode_after(tokenizer, after)
    shortest = bos + head + len(tail) + 2
    for length in range(shortest, len(whole) + 3):
        ids = verbalizer.encode(tokenizer, text, 1, max_length=length)["input_ids"]
        assert len(ids) == min(length, len(whole))
        assert ids[-1] == whole[-1]
        cut = len(ids) - 1 - len(tail)
        assert ids[cut:-1] == tail
        shown = tokenizer.decode(ids[bos:cut])
        assert shown.startswith(before.strip())
        kept = shown.removeprefix(before.strip()).strip()
        assert kept
        assert text.startswith(kept)
    assert ids == whole
    with pytest.raises(ValueError, match=rf"`max_length={shortest - 1}` leaves no room for text"):
        verbalizer.encode(tokenizer, text, 1, max_length=shortest - 1)


def test_an_initial_text_begins_with_a_blank_after_the_text(tokenizer: Any) -> None:
    def start(text: str, position: str) -> list[int]:
        settings = {"prompt_tuning_init": "TEXT", "tokenizer_name_or_path": "unused", "prompt_tuning_init_text": text}
        config = InterpPromptConfig(task_type="CAUSAL_LM", prompt_position=position, **settings)
        ids = initial_ids(config, torch.ones(len(tokenizer), dtype=torch.bool), tokenizer)
        assert ids is not None
        return ids.tolist()

    wanted = encode_after(tokenizer, " The film")
    assert start("The film", "end") == start(" The film", "end") == wanted
    assert start("The film", "start") == tokenizer.encode("The film", add_special_tokens=False)
    with pytest.raises(ValueError, match="has no tokens"):
        start("", "end")
