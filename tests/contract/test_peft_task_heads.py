"""What prompt tuning does to labels and outputs of the tasks beside CAUSAL_LM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    BertForQuestionAnswering,
    BertForTokenClassification,
    BertModel,
    GPT2ForSequenceClassification,
)

Build = Callable[..., Any]


def test_classification_loss_is_the_plain_task_loss(bert: Build, with_prompt: Build, token_ids: Build) -> None:
    """Promise: with weight 0, and in evaluation, our SEQ_CLS loss is cross-entropy alone."""
    model, labels = with_prompt(bert(num_labels=3), "SEQ_CLS"), torch.tensor([0, 2])
    output = model(input_ids=token_ids(2, 5), labels=labels)
    assert output.logits.shape == (2, 3)
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(output.logits, labels))


def test_classification_trains_the_head(bert: Build, with_prompt: Build) -> None:
    """Promise: beside the prompt, SEQ_CLS trains the new head and nothing else."""
    model = with_prompt(bert(num_labels=3), "SEQ_CLS")
    head = "base_model.classifier.modules_to_save.default"
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        *(f"{head}.weight", f"{head}.bias"),
        "prompt_encoder.default.embedding.weight",
    }


@torch.no_grad()
def test_decoder_classification_pools_a_pad(gpt2: Build, with_prompt: Build, token_ids: Build) -> None:
    """Promise: ours classifies the last real token; stock, given embeddings, the last column."""
    base = gpt2(GPT2ForSequenceClassification, num_labels=2)
    ids = token_ids(1, 5)
    rows = torch.cat([ids, ids.new_zeros(1, 3)], dim=1)
    mask = (rows > 0).long()
    torch.testing.assert_close(base(rows, attention_mask=mask).logits, base(ids).logits, rtol=0, atol=1e-4)
    model = with_prompt(base, "SEQ_CLS").eval()
    alone = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert (model(input_ids=rows, attention_mask=mask).logits - alone).abs().max() > 0.1


def test_token_classification_refuses_labels_of_the_input(bert: Build, with_prompt: Build, token_ids: Build) -> None:
    """Promise: ours pads TOKEN_CLS labels for the prompt; in stock the user has to."""
    model = with_prompt(bert(BertForTokenClassification, num_labels=3), "TOKEN_CLS")
    ids = token_ids(2, 5)
    assert model(input_ids=ids).logits.shape == (2, 9, 3)
    with pytest.raises(ValueError, match=r"batch_size \(18\) to match target batch_size \(10\)"):
        model(input_ids=ids, labels=torch.zeros_like(ids))
    longer = torch.cat([torch.full((2, 4), -100), torch.zeros_like(ids)], dim=1)
    assert model(input_ids=ids, labels=longer).loss.isfinite()


def test_question_answering_positions_are_not_shifted(
    bert: Build, with_prompt: Build, token_ids: Build, inputs_of: Build
) -> None:
    """Promise: ours counts answer positions as stock does: prompt columns come first."""
    model = with_prompt(bert(BertForQuestionAnswering), "QUESTION_ANS")
    start, end = torch.tensor([0, 1]), torch.tensor([2, 3])
    batch = {"input_ids": token_ids(2, 5), "start_positions": start, "end_positions": end}
    received = inputs_of(model, **batch)
    assert torch.equal(received["start_positions"], start)
    assert model(**batch).start_logits.shape == (2, 9)


def test_feature_extraction_returns_prompt_columns(bert: Build, with_prompt: Build, token_ids: Build) -> None:
    """Promise: our FEATURE_EXTRACTION output keeps stock's length, prompt included."""
    model = with_prompt(bert(BertModel), "FEATURE_EXTRACTION")
    assert model(input_ids=token_ids(2, 5)).last_hidden_state.shape == (2, 9, 32)


def test_token_types_are_padded_with_zeros(bert: Build, with_prompt: Build, token_ids: Build, inputs_of: Build) -> None:
    """Promise: ours gives prompt columns token type 0 where a task passes token types."""
    model, ids = with_prompt(bert(num_labels=2), "SEQ_CLS"), token_ids(1, 5)
    received = inputs_of(model, input_ids=ids, token_type_ids=torch.ones_like(ids))
    assert received["token_type_ids"].tolist() == [[0] * 4 + [1] * 5]


def test_encoder_decoder_leaves_the_decoder_alone(
    t5: Build, with_prompt: Build, token_ids: Build, inputs_of: Build
) -> None:
    """Promise: for SEQ_2_SEQ_LM only the encoder sees our prompt; labels keep their length."""
    model, ids = with_prompt(t5(), "SEQ_2_SEQ_LM"), token_ids(2, 5)
    ones = torch.ones_like(ids)
    batch = {
        "input_ids": ids,
        "attention_mask": ones,
        "labels": ids,
        "decoder_attention_mask": ones,
    }
    received = inputs_of(model, **batch)
    assert received["inputs_embeds"].shape == (2, 9, 32)
    assert received["attention_mask"].shape == (2, 9)
    assert torch.equal(received["labels"], ids)
    assert torch.equal(received["decoder_attention_mask"], ones)
    assert model(**batch).logits.shape == (2, 5, 64)
