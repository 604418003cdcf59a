"""`mark_prompt`: a text with `{prompt}` in it as a row for any head."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import processors

from peft_interp import mark_prompt
from peft_interp.text.placement import MARKED
from peft_interp.text.rows import read_rows
from peft_interp.text.tokenization import ids_around_text


@pytest.mark.parametrize("text", ["The film {prompt} was dull.", "Task: {prompt}\nThe film was dull.", "A{prompt}!"])
def test_a_prompt_put_at_the_mark_is_the_pasted_text(tokenizer: Any, text: str) -> None:
    row, prompt = mark_prompt(tokenizer, text), " great film"  # its own blank is that of the template
    (read,) = read_rows([{**row, "labels": [1]}], ids_around_text(tokenizer)[0], MARKED, "SEQ_CLS")
    pasted = tokenizer(text.replace(" {", "{").replace("{prompt}", prompt))
    assert [*read.before, *MARKED.encode_prompt(tokenizer, prompt), *read.after] == pasted["input_ids"]
    assert row["attention_mask"].count(0) == 1


def test_special_tokens_stand_around_it(byte_tokenizer: Any) -> None:
    import copy

    tokenizer = copy.deepcopy(byte_tokenizer)
    around = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 5), ("[SEP]", 6)])
    tokenizer.backend_tokenizer.post_processor = around
    row = mark_prompt(tokenizer, "{prompt} dull")  # CLS stands in front, so the place can be marked
    assert (row["input_ids"][0], row["input_ids"][-1]) == (5, 6)
    assert row["attention_mask"] == [1, 0, *[1] * (len(row["input_ids"]) - 2)]
    assert mark_prompt(tokenizer, "The {prompt}")["attention_mask"][-2:] == [0, 1]
    bare = mark_prompt(tokenizer, "The {prompt} dull", add_special_tokens=False)
    assert not {5, 6} & set(bare["input_ids"])
    cut = mark_prompt(tokenizer, "The {prompt} dull film that never ends", max_length=6)
    whole = mark_prompt(tokenizer, "The {prompt} dull film that never ends")
    assert len(cut["input_ids"]) == 6
    assert cut["input_ids"] == [*whole["input_ids"][:5], 6]


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("The film", {}, "must hold {prompt} once"),
        ("{prompt} The {prompt}", {}, "must hold {prompt} once"),
        ("The film {prompt}", {}, "nothing stands after the prompt in .*, so its place cannot be marked"),
        ("{prompt} The film", {}, "nothing stands in front of the prompt"),
        ("The film {prompt} was dull", {"max_length": 3}, "`max_length=3` leaves no room after {prompt}"),
        (None, {}, "`text=None` is no text"),
    ],
)
def test_what_cannot_be_marked_is_refused(byte_tokenizer: Any, text: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mark_prompt(byte_tokenizer, text, **options)
