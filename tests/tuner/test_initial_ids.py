"""A prompt starts from exactly the tokens that were asked for, or says why it cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from peft_interp.tuner.config import InterpPromptConfig
from peft_interp.tuner.initialization import initial_ids


def start(tokenizer: Any, allowed: torch.Tensor | None = None, **settings: Any) -> tuple[list[int] | None, Any]:
    config = InterpPromptConfig(task_type="CAUSAL_LM", tokenizer_name_or_path="unused", **settings)
    everything = torch.ones(len(tokenizer), dtype=torch.bool)
    ids = initial_ids(config, everything if allowed is None else allowed, tokenizer)
    return (None if ids is None else ids.tolist()), config


def from_text(tokenizer: Any, text: str, **settings: Any) -> tuple[list[int] | None, Any]:
    return start(tokenizer, prompt_tuning_init="TEXT", prompt_tuning_init_text=text, **settings)


def test_a_text_of_the_right_length_is_taken_as_it_is(tokenizer: Any) -> None:
    text_ids = tokenizer("The film was", add_special_tokens=False)["input_ids"]
    ids, _ = from_text(tokenizer, "The film was", num_virtual_tokens=len(text_ids))
    assert ids == text_ids


def test_the_text_decides_a_length_that_was_left_out(tokenizer: Any) -> None:
    ids, config = from_text(tokenizer, "The film was")
    assert config.num_virtual_tokens == len(ids or ())
    assert ids == tokenizer("The film was", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(("length", "remedy"), [(2, "truncate"), (5, "repeat")])
def test_a_text_that_does_not_fit_names_every_way_out(byte_tokenizer: Any, length: int, remedy: str) -> None:
    message = rf"3 tokens but `num_virtual_tokens={length}`; set `num_virtual_tokens=3`.*init_text_fit='{remedy}'"
    with pytest.raises(ValueError, match=message):
        from_text(byte_tokenizer, "It was great", num_virtual_tokens=length, init_text_fit="error")


@pytest.mark.parametrize(
    ("length", "done"), [(2, r"cut.*'truncate'"), (5, r"repeated.*'repeat'"), (7, r"repeated.*'repeat'")]
)
def test_left_to_itself_a_text_is_fitted_as_stock_does_it_and_the_numbers_are_said(
    byte_tokenizer: Any, length: int, done: str
) -> None:
    text_ids = byte_tokenizer("It was great")["input_ids"]
    with pytest.warns(UserWarning, match=rf"3 tokens and the prompt `num_virtual_tokens={length}`: the text is {done}"):
        ids, _ = from_text(byte_tokenizer, "It was great", num_virtual_tokens=length)
    assert ids == (text_ids * 3)[:length]


def test_a_short_text_is_repeated_and_a_long_one_cut_on_demand(byte_tokenizer: Any) -> None:
    text_ids = byte_tokenizer("It was great")["input_ids"]
    repeated, _ = from_text(byte_tokenizer, "It was great", num_virtual_tokens=7, init_text_fit="repeat")
    assert repeated == (text_ids * 3)[:7]
    cut, _ = from_text(byte_tokenizer, "It was great", num_virtual_tokens=2, init_text_fit="truncate")
    assert cut == text_ids[:2]


@pytest.mark.parametrize(("length", "how"), [(2, "repeat"), (5, "truncate")])
def test_repeat_does_not_cut_and_truncate_does_not_repeat(byte_tokenizer: Any, length: int, how: str) -> None:
    with pytest.raises(ValueError, match="3 tokens"):
        from_text(byte_tokenizer, "It was great", num_virtual_tokens=length, init_text_fit=how)


def test_a_text_without_tokens_is_an_error(byte_tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"'' has no tokens; give at least one word"):
        initial_ids(
            InterpPromptConfig(
                task_type="CAUSAL_LM",
                prompt_tuning_init="TEXT",
                prompt_tuning_init_text="",
                tokenizer_name_or_path="unused",
            ),
            torch.ones(len(byte_tokenizer), dtype=torch.bool),
            byte_tokenizer,
        )


def test_words_are_tokens_with_a_blank_in_front_repeated_to_the_length(tokenizer: Any) -> None:
    bad, great = tokenizer.encode("The bad great", add_special_tokens=False)[-2:]
    assert tokenizer.convert_ids_to_tokens(great) in ("Ġgreat", "▁great")
    ids, _ = start(tokenizer, init_words=["bad", " great "], num_virtual_tokens=5)
    assert ids == [bad, great, bad, great, bad]


def test_more_words_than_tokens_is_an_error_with_a_remedy_that_exists(byte_tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"\['bad', 'great'\].*2 tokens.*`num_virtual_tokens=1`; use fewer words or a"):
        start(byte_tokenizer, init_words=["bad", "great"], num_virtual_tokens=1)


def test_words_decide_a_length_that_was_left_to_the_text(byte_tokenizer: Any) -> None:
    ids, config = from_text(byte_tokenizer, "It was great", init_words=["bad", "great"])
    assert config.num_virtual_tokens == 2
    assert len(ids or ()) == 2


def test_a_forbidden_token_in_the_text_is_named(byte_tokenizer: Any) -> None:
    allowed = torch.ones(len(byte_tokenizer), dtype=torch.bool)
    allowed[byte_tokenizer.encode(" great")] = False
    text = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "It was great"}
    with pytest.raises(ValueError, match=r"\[' great'\].*forbid; change the text or loosen the filter"):
        start(byte_tokenizer, allowed, **text)
    with pytest.raises(ValueError, match=r"\[' great'\]"):
        start(byte_tokenizer, allowed, init_words=["great"])


def test_a_soft_prompt_may_start_from_any_text(byte_tokenizer: Any) -> None:
    nothing = torch.zeros(len(byte_tokenizer), dtype=torch.bool)
    ids, _ = start(byte_tokenizer, nothing, init_words=["great"], projection_metric="none", num_virtual_tokens=1)
    assert ids == byte_tokenizer.encode(" great")


def test_a_token_beyond_the_table_is_named_instead_of_an_index_error(byte_tokenizer: Any) -> None:
    small = torch.ones(byte_tokenizer.encode(" great")[0], dtype=torch.bool)
    for metric in ("cosine", "none"):
        with pytest.raises(ValueError, match=r"\[' great'\]"):
            start(byte_tokenizer, small, init_words=["great"], projection_metric=metric)


def test_sampled_tokens_are_allowed_ones_and_follow_the_seed(byte_tokenizer: Any) -> None:
    allowed = torch.zeros(len(byte_tokenizer), dtype=torch.bool)
    allowed[[5, 17, 30]] = True
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(start(byte_tokenizer, allowed, num_virtual_tokens=40)[0])
    assert set(draws[0] or ()) == {5, 17, 30}
    assert draws[0] == draws[1] != draws[2]


def test_a_random_start_is_no_tokens(byte_tokenizer: Any) -> None:
    assert start(byte_tokenizer, prompt_tuning_init="RANDOM")[0] is None
