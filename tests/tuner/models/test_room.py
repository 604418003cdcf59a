"""Prompt and text that are longer than a model's learned positions are refused in words; what fits is let through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import BertForTokenClassification

Build = Callable[..., Any]
LIMIT, PROMPT = 16, 4
FITS = LIMIT - PROMPT


@pytest.fixture(params=["gpt2", "opt", "bert", "roberta", "bart"])
def model(
    request: pytest.FixtureRequest, causal: Build, bert: Build, roberta: Build, bart: Build, readable: Build
) -> Any:
    name = request.param
    if name in ("gpt2", "opt"):
        return readable(causal(name, max_position_embeddings=LIMIT))
    if name == "bart":
        return readable(bart(max_position_embeddings=LIMIT), "SEQ_2_SEQ_LM")
    if name == "bert":
        return readable(bert(BertForTokenClassification, max_position_embeddings=LIMIT), "TOKEN_CLS")
    return readable(roberta(max_position_embeddings=LIMIT + 1), "TOKEN_CLS")  # counts from after its padding row, 0


@pytest.mark.parametrize("training", [False, True])
def test_one_token_too_many(model: Any, token_ids: Build, training: bool) -> None:
    ids = token_ids(2, FITS + 1)
    model.train(training)(input_ids=ids[:, :FITS], labels=ids[:, :FITS] % 2)
    message = f"{FITS + 1} tokens; with a prompt of {PROMPT} that is {LIMIT + 1}, .* {LIMIT}. Truncate .* {FITS} tokens"
    with pytest.raises(ValueError, match=message):
        model(input_ids=ids, labels=ids % 2)


@pytest.mark.parametrize("position", ["start", "end"])
@pytest.mark.parametrize("training", [False, True])
def test_padding_takes_no_room(causal: Build, readable: Build, token_ids: Build, training: bool, position: str) -> None:
    model = readable(causal("gpt2", max_position_embeddings=LIMIT), prompt_position=position).train(training)
    ids = token_ids(2, FITS + 3)
    mask = torch.ones_like(ids)
    mask[:, :3] = 0
    labels = ids.masked_fill(torch.arange(FITS + 3) < FITS + 2, -100)
    assert model(input_ids=ids, attention_mask=mask, labels=labels).loss.isfinite()
    with pytest.raises(ValueError, match="the model has positions for"):
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels)


def test_computed_positions_have_no_end(causal: Build, readable: Build, token_ids: Build) -> None:
    model = readable(causal("llama", max_position_embeddings=LIMIT))
    assert model(input_ids=token_ids(2, LIMIT)).logits.shape[1] == LIMIT + PROMPT


def test_generate(causal: Build, readable: Build, token_ids: Build) -> None:
    model = readable(causal("gpt2", max_position_embeddings=LIMIT))
    assert model.generate(token_ids(1, FITS - 2), max_new_tokens=2, eos_token_id=None).shape == (1, FITS)
    with pytest.raises(ValueError, match="Give `max_new_tokens=2` or less"):
        model.generate(token_ids(1, FITS - 2), max_new_tokens=9, eos_token_id=None)
    with pytest.raises(ValueError, match="Truncate the text"):
        model.generate(token_ids(1, FITS + 2), max_new_tokens=1)
