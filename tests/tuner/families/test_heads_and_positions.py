"""Classifiers on decoders whatever their head is called, and decoders whose positions do not begin at 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    CTRLConfig,
    CTRLForSequenceClassification,
    GPT2ForSequenceClassification,
    RemBertConfig,
    RemBertForCausalLM,
    RobertaConfig,
    RobertaForCausalLM,
)

from peft_interp.inference.padding_habits import first_position, reads_last_column
from tests.builders import INIT_RANGE, seeded

Build = Callable[..., Any]


def ctrl() -> Any:
    """A classifier on a decoder whose head is called `classifier`."""
    shape = {"vocab_size": 64, "n_positions": 64, "n_embd": 32, "dff": 48, "n_layer": 2, "n_head": 2}
    none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "pad_token_id": 0, "num_labels": 2}
    return seeded(CTRLForSequenceClassification, CTRLConfig(**shape, **none))


def roberta() -> Any:
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": INIT_RANGE}
    special = {"vocab_size": 64, "max_position_embeddings": 64, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    return seeded(RobertaForCausalLM, RobertaConfig(is_decoder=True, **shape, **none, **special))


def rembert() -> Any:
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    special = {"vocab_size": 64, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    more = {"input_embedding_size": 16, "output_embedding_size": 16, "is_decoder": True, "classifier_dropout_prob": 0.0}
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": INIT_RANGE}
    return seeded(RemBertForCausalLM, RemBertConfig(**shape, **special, **more, **none))


def test_heads_are_known_by_what_they_read(gpt2: Build, bert: Build) -> None:
    assert reads_last_column(ctrl())
    assert reads_last_column(gpt2(GPT2ForSequenceClassification, num_labels=2))
    assert not reads_last_column(bert())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_row_is_classified_alike_alone_and_padded(side: str, training: bool, readable: Build) -> None:
    model = readable(ctrl(), "SEQ_CLS").train(training)
    row = torch.tensor([[5, 6, 7]])
    pads = torch.zeros(1, 2, dtype=torch.long)
    order = (pads, row) if side == "left" else (row, pads)
    padded = torch.cat(order, dim=1)
    labels = torch.tensor([1])
    alone = model(input_ids=row, attention_mask=torch.ones_like(row), labels=labels)
    beside = model(input_ids=padded, attention_mask=padded.ne(0).long(), labels=labels)
    if side == "right":  # CTRL has no way to be told of positions, so padding in front shifts them, in stock as here
        torch.testing.assert_close(alone.logits, beside.logits, rtol=0, atol=1e-5)
        torch.testing.assert_close(alone.loss, beside.loss, rtol=0, atol=1e-5)
    pasted = torch.cat((torch.tensor([model.prompt_token_ids()]), row), dim=1)
    with torch.no_grad():
        torch.testing.assert_close(model.base_model(input_ids=pasted).logits, alone.logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("build", [roberta, rembert])
@pytest.mark.parametrize("position", ["start", "end"])
@pytest.mark.parametrize("share_prefix", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_training_loss_is_that_of_the_pasted_text(
    build: Callable[[], Any], position: str, share_prefix: bool, readable: Build
) -> None:
    base = build()
    assert first_position(base) == (2 if build is roberta else 0)
    model = readable(base, prompt_position=position, share_prefix=share_prefix).train()
    ids = torch.tensor([[5, 6, 7, 9, 8], [11, 12, 13, 14, 15]])
    labels = ids.clone()
    labels[:, :3] = -100
    found = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
    found.backward()
    assert model.prompt_encoder["default"].latent.grad.norm() > 0
    prompt = torch.tensor(model.prompt_token_ids()).expand(2, -1)
    place = 0 if position == "start" else 3
    pasted = torch.cat((ids[:, :place], prompt, ids[:, place:]), dim=1)
    answers = torch.cat((labels[:, :place], torch.full_like(prompt, -100), labels[:, place:]), dim=1)
    with torch.no_grad():
        expected = base(input_ids=pasted, labels=answers).loss
        model.eval()
        again = model(input_ids=ids, labels=labels).loss
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again, expected, rtol=1e-5, atol=1e-5)
