"""What a newcomer gets wrong first, on the embedded model: each is said in words, nothing is silently ignored."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset
from peft import get_peft_model

from peft_interp import InterpPromptConfig, Verbalizer, embedded


def prompted(**settings: Any) -> Any:
    return get_peft_model(
        embedded.load_model(), InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, **settings)
    )


def test_special_tokens_cannot_be_put_into_the_prompt() -> None:
    model, tokenizer = prompted(), embedded.load_tokenizer()
    before = model.prompt_token_ids()
    with pytest.raises(ValueError, match=r"token ids \[0, 0, 0, 0\] are special, unused, or forbidden"):
        model.use_prompt([tokenizer.eos_token_id] * 4)
    assert model.prompt_token_ids() == before


def test_banned_words_cannot_be_put_into_the_prompt() -> None:
    tokenizer = embedded.load_tokenizer()
    model = prompted(banned_words=["great"], tokenizer_name_or_path=embedded.MODEL_PATH)
    with pytest.raises(ValueError, match="forbidden"):
        model.use_prompt(tokenizer.encode(" great", add_special_tokens=False) * 4)


def test_a_soft_prompt_has_no_text_that_could_survive() -> None:
    model, tokenizer = prompted(projection_metric="none"), embedded.load_tokenizer()
    assert model.prompt_text(tokenizer)
    with pytest.raises(ValueError, match="vectors that are no text"):
        model.prompt_survives(tokenizer, " The film")


def test_an_initial_text_is_not_silently_ignored() -> None:
    with pytest.raises(ValueError, match="only used with `prompt_tuning_init='TEXT'`"):
        InterpPromptConfig(task_type="CAUSAL_LM", prompt_tuning_init_text="Movie review:")


def test_a_missing_column_is_named() -> None:
    data = Dataset.from_dict({"text": ["Dull."], "label": [0]})
    with pytest.raises(ValueError, match=r"no column \['sentence'\], only \['text', 'label'\]"):
        embedded.TASKS["sentiment"].encode_dataset(embedded.load_tokenizer(), data)


def test_the_label_has_no_place_in_the_template() -> None:
    with pytest.raises(ValueError, match=r"leave \{label\} out"):
        Verbalizer("{prompt} {text} It was {label}", ("terrible", "great"))
