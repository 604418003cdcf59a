"""A prompt at the end is tokenised after the ends of real texts, since there it may melt with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import get_peft_model

from peft_interp import InterpPromptConfig, embedded
from peft_interp.scoring.candidates import Candidate, PolicyVocabulary
from peft_interp.text.placement import END, START
from peft_interp.text.rows import Row, read_rows
from peft_interp.text.surrounding_text import ENDING_TOKENS, MOST_ENDINGS, SurroundingText, surrounding_text

TEXTS = ("A fine film.", "Dull, slow and long.", "Was it worth it?", "He said so (twice)")


@pytest.fixture(scope="module")
def bpe() -> Any:
    return embedded.load_tokenizer()


def after(bpe: Any, texts: tuple[str, ...], leading: tuple[int, ...] = ()) -> SurroundingText:
    """What a prompt at the end stands beside in rows of these texts."""
    rows = []
    for text in texts:
        ids = [*leading, *bpe.encode(text, add_special_tokens=False)]
        rows.append({"input_ids": [*ids, 9], "attention_mask": [1] * (len(ids) + 1), "labels": [-100] * len(ids) + [9]})
    return surrounding_text(bpe, read_rows(rows, leading, END) if rows else [], END)


def candidate(bpe: Any, text: str, texts: tuple[str, ...]) -> Candidate:
    vocabulary = PolicyVocabulary(torch.ones(len(bpe), dtype=torch.bool), bpe)
    ids = bpe.encode("a" + text, add_special_tokens=False)[1:]
    return vocabulary.candidate(ids, after(bpe, texts))


@pytest.mark.parametrize("text", [". It was", ".. so", "... it", " film review verdict", " It was", "? No", ") and"])
def test_it_survives_exactly_where_the_model_says_so(text: str, bpe: Any) -> None:
    base = embedded.load_model()
    config = InterpPromptConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=3,
        prompt_position="end",
        tokenizer_name_or_path=embedded.MODEL_PATH,
        allowed_tokens="all",
    )
    model = get_peft_model(base, config)
    for texts in ((TEXTS[0],), TEXTS[2:], TEXTS):
        found = candidate(bpe, text, texts)
        model.use_prompt(bpe.encode("a" + text, add_special_tokens=False)[1:], resize=True)
        truth = all(model.prompt_survives(bpe, "", preceding_text=before) for before in texts)
        assert (found.survived, found.fits) == (truth, truth), (text, texts)


def test_some_melt_and_some_do_not(bpe: Any) -> None:
    assert not candidate(bpe, ". It was", TEXTS).survived
    assert candidate(bpe, " It was", TEXTS).survived
    assert candidate(bpe, " It was", TEXTS).text == " It was"


def test_without_rows_it_stands_after_a_letter(bpe: Any) -> None:
    assert candidate(bpe, ". It was", ()).survived


def test_one_ending_for_each_last_token_the_frequent_ones_first(bpe: Any) -> None:
    texts = after(bpe, (*TEXTS, "Good?", "Is it?", "Not this one?")).preceding
    assert [text[-1] for text in texts] == ["?", ".", ")"]
    assert all(len(bpe.encode(text, add_special_tokens=False)) <= ENDING_TOKENS for text in texts)
    assert not any(text.startswith(" ") for text in texts)
    words = tuple(f"ends in {i} x{i}" for i in range(10, 90))
    assert len(after(bpe, words).preceding) <= MOST_ENDINGS


def test_a_leading_token_is_no_text(bpe: Any) -> None:
    assert after(bpe, ("",), (5,)).preceding == ()
    assert after(bpe, ("Good.",), (5,)).preceding == ("Good.",)


def test_a_prompt_in_front_stands_beside_the_first_row(bpe: Any) -> None:
    ids = bpe.encode(" A fine film.", add_special_tokens=False)
    beside = surrounding_text(bpe, [Row((5,), tuple(ids), tuple(ids)), Row((), (9,), (9,))], START)
    assert (beside.following, beside.preceding) == (" A fine film.", ())


@pytest.mark.parametrize("placement", [START, END])
def test_without_rows_nothing_is_known(placement: Any, bpe: Any) -> None:
    assert surrounding_text(bpe, [], placement) == SurroundingText(placement)
