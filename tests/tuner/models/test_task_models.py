"""The other tasks: the text's logits, losses that fall, and outputs in the order of the labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    GPT2ForSequenceClassification,
    GPT2ForTokenClassification,
    GPT2Model,
    LlamaForSequenceClassification,
    RobertaForSequenceClassification,
    RobertaForTokenClassification,
)

Build = Callable[..., Any]
PROMPT = 4
CLS = 1
TIGHT = {"atol": 1e-5, "rtol": 1e-5}
LEADING = {"leading_token_ids": [CLS]}


@pytest.fixture
def task_base(gpt2: Build, bert: Build, roberta: Build, causal: Build, t5: Build, bart: Build) -> Build:
    """`task_base(case)`: base model and task type."""

    def build(case: str) -> tuple[Any, str]:
        cases: dict[str, Callable[[], Any]] = {
            "bert SEQ_CLS": lambda: bert(BertForSequenceClassification),
            "roberta SEQ_CLS": lambda: roberta(RobertaForSequenceClassification),
            "gpt2 SEQ_CLS": lambda: gpt2(GPT2ForSequenceClassification),
            "bert TOKEN_CLS": lambda: bert(BertForTokenClassification),
            "roberta TOKEN_CLS": lambda: roberta(RobertaForTokenClassification),
            "gpt2 TOKEN_CLS": lambda: gpt2(GPT2ForTokenClassification, classifier_dropout=0.0),
            "bert QUESTION_ANS": lambda: bert(BertForQuestionAnswering),
            "bert FEATURE_EXTRACTION": lambda: bert(BertModel),
            "gpt2 FEATURE_EXTRACTION": lambda: gpt2(GPT2Model),
            "t5 SEQ_2_SEQ_LM": t5,
            "bart SEQ_2_SEQ_LM": bart,
            "llama CAUSAL_LM": lambda: causal("llama"),
        }
        return cases[case](), case.split()[1]

    return build


TRAINABLE = [
    *("bert SEQ_CLS", "roberta SEQ_CLS", "gpt2 SEQ_CLS", "bert TOKEN_CLS", "roberta TOKEN_CLS", "gpt2 TOKEN_CLS"),
    *("bert QUESTION_ANS", "t5 SEQ_2_SEQ_LM", "bart SEQ_2_SEQ_LM", "llama CAUSAL_LM"),
]
FEATURES = ["bert FEATURE_EXTRACTION", "gpt2 FEATURE_EXTRACTION"]


def labels_for(task_type: str, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    if task_type == "SEQ_CLS":
        return {"labels": torch.arange(len(ids)) % 2}
    if task_type == "TOKEN_CLS":
        return {"labels": ids % 2}
    if task_type == "QUESTION_ANS":
        return {"start_positions": torch.tensor([1, 2, 0]), "end_positions": torch.tensor([3, 2, 3])}
    return {"labels": ids[:, :3].contiguous()} if task_type == "SEQ_2_SEQ_LM" else {"labels": ids}


@pytest.mark.parametrize("case", TRAINABLE)
def test_the_loss_falls(task_base: Build, readable: Build, batch: Build, rows: Build, case: str) -> None:
    base, task_type = task_base(case)
    model = readable(base, task_type, projection_metric="dot").train()
    given = batch(rows("all"), "right")
    labels = labels_for(task_type, given["input_ids"])
    encoder = model.prompt_encoder["default"]
    head = [p for p in model.parameters() if p.requires_grad and p is not encoder.latent]
    groups = [{"params": [encoder.latent], "lr": 0.3}, {"params": head, "lr": 0.01}]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]])
    losses, first = [], encoder.latent.detach().clone()
    for _ in range(8):
        loss = model(**given, **labels).loss
        loss.backward()
        assert encoder.latent.grad is not None
        assert encoder.latent.grad.norm() > 0
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert min(losses[1:]) < losses[0]
    assert not torch.equal(encoder.latent, first)
    assert model.prompt_statistics()["step"] == 8


@pytest.mark.parametrize("case", [*TRAINABLE, *FEATURES])
def test_evaluation_shapes_equal_stock(
    task_base: Build, readable: Build, with_prompt: Build, batch: Build, rows: Build, case: str
) -> None:
    base, task_type = task_base(case)
    ours, stock = readable(base, task_type), with_prompt(task_base(case)[0], task_type).eval()
    given = batch(rows("all"), "right")
    if task_type not in ("FEATURE_EXTRACTION", "TOKEN_CLS"):  # stock fails on labels for tokens
        given |= labels_for(task_type, given["input_ids"])
    with torch.no_grad():
        mine, theirs = ours(**given), stock(**given)
    for name, value in theirs.items():
        if isinstance(value, torch.Tensor):
            assert mine[name].shape == value.shape, name
    assert type(mine) is type(theirs)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("case", ["gpt2 SEQ_CLS", "bert SEQ_CLS", "roberta SEQ_CLS"])
def test_sequence_classification_is_the_text(
    task_base: Build, readable: Build, batch: Build, rows: Build, case: str, side: str
) -> None:
    """Evaluation, and training, where rows enter as vectors and padding cannot be seen in the ids."""
    base, task_type = task_base(case)
    model = readable(base, task_type, **LEADING)
    given = batch(rows("all"), side)
    text = batch(rows("all"), side, model.prompt_token_ids())
    labels = labels_for(task_type, given["input_ids"])["labels"]
    positions = {}
    if case.startswith("gpt2"):
        positions = {"position_ids": (text["attention_mask"].cumsum(1) - 1).clamp_min(0)}
    with torch.no_grad():
        expected = model.base_model(**text, **positions, labels=labels)
        as_ids = model(**given, labels=labels)
    as_vectors = model.train()(**given, labels=labels)
    for output in (as_ids, as_vectors):
        torch.testing.assert_close(output.logits, expected.logits, **TIGHT)
        torch.testing.assert_close(output.loss, expected.loss, **TIGHT)


def test_decoder_classifier_reads_the_last_word(causal: Build, readable: Build, batch: Build, rows: Build) -> None:
    """Right padding, with a mask, without one, and with a mask that attends to a final pad token."""
    base = LlamaForSequenceClassification(causal("llama").config).eval()
    model = readable(base, "SEQ_CLS", **LEADING)
    given = batch(rows("all"), "right")
    text = batch(rows("all"), "right", model.prompt_token_ids())
    everything = torch.ones_like(given["attention_mask"])
    with torch.no_grad():
        expected = model.base_model(**text).logits
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    for training in (False, True):
        model.train(training)
        torch.testing.assert_close(model(**given).logits, expected, **TIGHT)
        torch.testing.assert_close(model(input_ids=given["input_ids"]).logits, expected, **TIGHT)
        attended = model(input_ids=given["input_ids"], attention_mask=everything).logits
        torch.testing.assert_close(attended, expected, **TIGHT)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("case", ["bert TOKEN_CLS", "roberta TOKEN_CLS", "gpt2 TOKEN_CLS"])
def test_token_classification_answers_in_the_order_of_the_input(
    task_base: Build, readable: Build, batch: Build, rows: Build, case: str, side: str
) -> None:
    base, task_type = task_base(case)
    model = readable(base, task_type, **LEADING)
    given = batch(rows("all"), side)
    mask = given["attention_mask"].bool()
    labels = (given["input_ids"] % 2).masked_fill(~mask, -100)
    text = batch(rows("all"), side, model.prompt_token_ids())
    with torch.no_grad():
        expected = model.base_model(**text).logits
        as_ids = model(**given, labels=labels)
    as_vectors = model.train()(**given, labels=labels)
    for output in (as_ids, as_vectors):
        assert output.logits.shape == (3, 8 + PROMPT, 2)
        for i, row in enumerate(rows("all")):
            pads = 8 - len(row) if side == "left" else 0
            words = slice(pads + 1, pads + len(row))
            after = slice(pads + 1 + PROMPT, pads + len(row) + PROMPT)
            torch.testing.assert_close(output.logits[i, pads], expected[i, pads], **TIGHT)
            torch.testing.assert_close(output.logits[i, words], expected[i, after], **TIGHT)
        by_hand = torch.nn.functional.cross_entropy(output.logits[:, :8][mask], labels[mask])
        torch.testing.assert_close(output.loss, by_hand, **TIGHT)


@pytest.mark.parametrize("training", [False, True])
def test_question_answering_counts_columns_of_the_input(
    bert: Build, readable: Build, batch: Build, rows: Build, training: bool
) -> None:
    model = readable(bert(BertForQuestionAnswering), "QUESTION_ANS", **LEADING).train(training)
    given = batch(rows("all"), "right")
    start, end = torch.tensor([2, 0, 99]), torch.tensor([3, 1, 2])
    output = model(**given, start_positions=start, end_positions=end)
    text = batch(rows("all"), "right", model.prompt_token_ids())
    moved = [torch.tensor([2 + PROMPT, 0, 99]), torch.tensor([3 + PROMPT, 1 + PROMPT, 2 + PROMPT])]
    expected = model.base_model(**text, start_positions=moved[0], end_positions=moved[1])
    torch.testing.assert_close(output.loss, expected.loss, **TIGHT)
    for name in ("start_logits", "end_logits"):
        torch.testing.assert_close(output[name][:, 0], expected[name][:, 0], **TIGHT)
        torch.testing.assert_close(output[name][:, 1:8], expected[name][:, 1 + PROMPT :], **TIGHT)
        torch.testing.assert_close(output[name][:, 8:], expected[name][:, 1 : 1 + PROMPT], **TIGHT)


@pytest.mark.parametrize("case", FEATURES)
def test_features_in_reading_order(task_base: Build, readable: Build, batch: Build, rows: Build, case: str) -> None:
    base, task_type = task_base(case)
    model = readable(base, task_type, **LEADING)
    text = batch(rows("all"), "right", model.prompt_token_ids())
    with torch.no_grad():
        ours = model(**batch(rows("all"), "right")).last_hidden_state
        expected = model.base_model(**text).last_hidden_state
    keep = text["attention_mask"].bool()
    torch.testing.assert_close(ours[keep], expected[keep], **TIGHT)


def test_token_types_follow_the_text(bert: Build, readable: Build, batch: Build) -> None:
    """The prompt is segment 0, the second segment stays where its words are."""
    model = readable(bert(), "SEQ_CLS", **LEADING)
    given = batch([[CLS, 5, 6, 7, 8]])
    types = torch.tensor([[0, 0, 0, 1, 1]])
    text = batch([[CLS, 5, 6, 7, 8]], prompt=model.prompt_token_ids())
    moved = torch.tensor([[0] * (3 + PROMPT) + [1, 1]])
    with torch.no_grad():
        expected = model.base_model(**text, token_type_ids=moved).logits
        torch.testing.assert_close(model(**given, token_type_ids=types).logits, expected, **TIGHT)
        assert not torch.allclose(model(**given).logits, expected)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("case", ["t5 SEQ_2_SEQ_LM", "bart SEQ_2_SEQ_LM"])
def test_seq2seq(task_base: Build, readable: Build, batch: Build, rows: Build, case: str, side: str) -> None:
    """Loss, logits and `generate` are those of the text in the encoder."""
    base, task_type = task_base(case)
    model = readable(base, task_type)
    untouched = task_base(case)[0]
    given = batch(rows("no"), side)
    text = batch(rows("no"), side, model.prompt_token_ids())
    labels = given["input_ids"][:, :3].contiguous()
    with torch.no_grad():
        expected = untouched(**text, labels=labels)
        output = model(**given, labels=labels)
    trained = model.train()(**given, labels=labels)
    for one in (output, trained):
        torch.testing.assert_close(one.logits, expected.logits, **TIGHT)
        torch.testing.assert_close(one.loss, expected.loss, **TIGHT)
    model.eval()
    for settings in ({}, {"num_beams": 3, "num_return_sequences": 2}, {"encoder_repetition_penalty": 3.0}):
        ours = model.generate(**given, max_new_tokens=5, **settings)
        assert torch.equal(ours, untouched.generate(**text, max_new_tokens=5, **settings))
    ids = given["input_ids"][:1]
    expected_ids = model.generate(input_ids=ids, max_new_tokens=4)
    with pytest.raises(TypeError, match="positional"):  # as stock
        model.generate(ids, max_new_tokens=4)
    embeds = model.word_embeddings(ids)
    assert torch.equal(model.generate(inputs_embeds=embeds, max_new_tokens=4), expected_ids)
    with pytest.raises(ValueError, match="needs `input_ids` or `inputs_embeds` for the encoder"):
        model.generate(max_new_tokens=4)


@pytest.mark.parametrize("case", ["bert SEQ_CLS", "bert TOKEN_CLS", "t5 SEQ_2_SEQ_LM"])
def test_separate_perplexity_model(
    task_base: Build, readable: Build, causal: Build, batch: Build, rows: Build, case: str
) -> None:
    """In training the term is added; in evaluation the loss is the plain task loss."""
    base, task_type = task_base(case)
    given = batch(rows("all"), "right")
    labels = labels_for(task_type, given["input_ids"])
    model = readable(base, task_type, perplexity_weight=1.5)
    with pytest.raises(ValueError, match=r"`perplexity_weight=1.5` needs .* language-model head"):
        model.train()(**given, **labels)
    model.set_perplexity_model(causal("gpt2"))
    task_loss = model.eval()(**given, **labels).loss
    loss = model.train()(**given, **labels).loss
    nll = model.prompt_statistics()["prompt_nll"]
    torch.testing.assert_close(loss, task_loss + 1.5 * nll)
    loss.backward()
    assert model.prompt_encoder["default"].latent.grad.norm() > 0


def test_return_tuple(bert: Build, readable: Build, batch: Build, rows: Build) -> None:
    model = readable(bert(BertForTokenClassification), "TOKEN_CLS")
    given = batch(rows("no"), "left")
    output = model(**given, labels=given["input_ids"] % 2)
    loss, logits = model(**given, labels=given["input_ids"] % 2, return_dict=False)
    assert torch.equal(loss, output.loss)
    assert torch.equal(logits, output.logits)
