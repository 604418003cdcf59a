"""`prompt_position="template"` on classifiers, taggers, answerers, encoders and encoder-decoders: the pasted text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import (
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    GPT2ForSequenceClassification,
    GPT2ForTokenClassification,
    LlamaForSequenceClassification,
    RobertaForSequenceClassification,
)

Build = Callable[..., Any]
PROMPT, PAD, CLS = 4, 0, 1
PLACES = (4, 2, 3)  # tokens in front of the prompt, CLS among them
TIGHT = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture
def inside(
    gpt2: Build, bert: Build, roberta: Build, causal: Build, t5: Build, bart: Build, readable: Build
) -> Callable[[str], Any]:
    """`inside("bert SEQ_CLS")`: a model whose rows mark the prompt's place."""
    cases: dict[str, Callable[[], Any]] = {
        "bert SEQ_CLS": lambda: bert(BertForSequenceClassification),
        "roberta SEQ_CLS": lambda: roberta(RobertaForSequenceClassification),
        "gpt2 SEQ_CLS": lambda: gpt2(GPT2ForSequenceClassification),
        "llama SEQ_CLS": lambda: LlamaForSequenceClassification(causal("llama").config).eval(),
        "bert TOKEN_CLS": lambda: bert(BertForTokenClassification),
        "gpt2 TOKEN_CLS": lambda: gpt2(GPT2ForTokenClassification, classifier_dropout=0.0),
        "bert QUESTION_ANS": lambda: bert(BertForQuestionAnswering),
        "bert FEATURE_EXTRACTION": lambda: bert(BertModel),
        "masked FEATURE_EXTRACTION": lambda: bert(BertForMaskedLM),
        "t5 SEQ_2_SEQ_LM": t5,
        "bart SEQ_2_SEQ_LM": bart,
    }

    def build(case: str) -> Any:
        place = {"prompt_position": "template", "leading_token_ids": [CLS]}
        return readable(cases[case](), case.split()[1], **place)

    return build


@pytest.fixture
def marked(batch: Build) -> Build:
    """`marked(rows, side)`: ids and mask, each row with a column that its mask leaves out at its place."""

    def build(rows: Sequence[list[int]], side: str) -> dict[str, Any]:
        given = batch([[*r[:p], PAD, *r[p:]] for r, p in zip(rows, PLACES, strict=True)], side)
        for i, (row, place) in enumerate(zip(rows, PLACES, strict=True)):
            pads = given["input_ids"].shape[1] - len(row) - 1 if side == "left" else 0
            given["attention_mask"][i, pads + place] = 0
        return given

    return build


@pytest.fixture
def pasted(batch: Build) -> Build:
    def build(rows: Sequence[list[int]], side: str, prompt: list[int]) -> dict[str, Any]:
        return batch([[*r[:p], *prompt, *r[p:]] for r, p in zip(rows, PLACES, strict=True)], side)

    return build


def positions(model: Any, text: dict[str, Any]) -> dict[str, Any]:
    """What a decoder must be told, so that padding shifts nothing."""
    decoder = type(model.base_model).__name__.startswith(("GPT2", "Llama"))
    return {"position_ids": (text["attention_mask"].cumsum(1) - 1).clamp_min(0)} if decoder else {}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("case", ["bert SEQ_CLS", "roberta SEQ_CLS", "gpt2 SEQ_CLS", "llama SEQ_CLS"])
def test_a_classifier(inside: Build, marked: Build, pasted: Build, rows: Build, case: str, side: str) -> None:
    model = inside(case)
    given, text = marked(rows("all"), side), pasted(rows("all"), side, model.prompt_token_ids())
    labels = torch.tensor([0, 1, 0])
    with torch.no_grad():
        expected = model.base_model(**text, **positions(model, text), labels=labels)
        as_ids = model(**given, labels=labels)
    assert (expected.logits[0] - expected.logits[1]).abs().max() > 1e-3
    as_vectors = model.train()(**given, labels=labels)
    as_vectors.loss.backward()
    assert model.prompt_encoder["default"].latent.grad.norm() > 0
    for output in (as_ids, as_vectors):
        torch.testing.assert_close(output.logits, expected.logits, **TIGHT)
        torch.testing.assert_close(output.loss, expected.loss, **TIGHT)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("case", ["bert TOKEN_CLS", "gpt2 TOKEN_CLS"])
def test_a_tagger_answers_in_the_order_of_the_input(
    inside: Build, marked: Build, pasted: Build, rows: Build, case: str, side: str
) -> None:
    model = inside(case)
    given, text = marked(rows("all"), side), pasted(rows("all"), side, model.prompt_token_ids())
    mask = given["attention_mask"].bool()
    labels = (given["input_ids"] % 2).masked_fill(~mask, -100)
    marks = mask.cumsum(1).eq(torch.tensor(PLACES).unsqueeze(1)) & ~mask
    told = torch.where(marks & (marks.cumsum(1) == 1), 1, labels)  # a label at the mark is none
    with torch.no_grad():
        expected = model.base_model(**text).logits
        as_ids = model(**given, labels=labels)
    as_vectors = model.train()(**given, labels=told)
    kept = text["attention_mask"].bool()
    for output in (as_ids, as_vectors):
        assert output.logits.shape == (3, given["input_ids"].shape[1] + PROMPT, 2)
        for i, place in enumerate(PLACES):
            words = expected[i][kept[i]]
            words = torch.cat((words[:place], words[place + PROMPT :]))
            torch.testing.assert_close(output.logits[i, : mask.shape[1]][mask[i]], words, **TIGHT)
        by_hand = torch.nn.functional.cross_entropy(output.logits[:, : mask.shape[1]][mask], labels[mask])
        torch.testing.assert_close(output.loss, by_hand, **TIGHT)


@pytest.mark.parametrize("training", [False, True])
def test_an_answerer_counts_columns_of_the_input(
    inside: Build, marked: Build, pasted: Build, rows: Build, training: bool
) -> None:
    model = inside("bert QUESTION_ANS").train(training)
    given, text = marked(rows("all"), "right"), pasted(rows("all"), "right", model.prompt_token_ids())
    start, end = torch.tensor([2, 3, 99]), torch.tensor([6, 4, 99])  # columns; marks stand in 4, 2 and 3
    moved = torch.tensor([2, 3 + PROMPT - 1, 99]), torch.tensor([6 + PROMPT - 1, 4 + PROMPT - 1, 99])
    output = model(**given, start_positions=start, end_positions=end)
    with torch.no_grad():
        expected = model.base_model(**text, start_positions=moved[0], end_positions=moved[1])
    torch.testing.assert_close(output.loss, expected.loss, **TIGHT)
    for name in ("start_logits", "end_logits"):
        for i, place in enumerate(PLACES):
            words = torch.cat((expected[name][i, :place], expected[name][i, place + PROMPT :]))
            found = output[name][i, : given["input_ids"].shape[1]]
            assert found[place] == found.min()
            torch.testing.assert_close(torch.cat((found[:place], found[place + 1 :])), words, **TIGHT)


@pytest.mark.parametrize("side", ["left", "right"])
def test_features_in_reading_order(inside: Build, marked: Build, pasted: Build, rows: Build, side: str) -> None:
    model = inside("bert FEATURE_EXTRACTION")
    text = pasted(rows("all"), side, model.prompt_token_ids())
    with torch.no_grad():
        found = model(**marked(rows("all"), side)).last_hidden_state
        expected = model.base_model(**text).last_hidden_state
    keep = text["attention_mask"].bool()
    torch.testing.assert_close(found[keep], expected[keep], **TIGHT)


def test_a_masked_language_model(inside: Build, marked: Build, pasted: Build, rows: Build) -> None:
    model = inside("masked FEATURE_EXTRACTION")
    given, text = marked(rows("all"), "right"), pasted(rows("all"), "right", model.prompt_token_ids())
    labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
    answers = [[*r[:p], *[-100] * PROMPT, *r[p:]] for r, p in zip(rows("all"), PLACES, strict=True)]
    width = text["input_ids"].shape[1]
    moved = torch.tensor([[*row, *[-100] * (width - len(row))] for row in answers])
    with torch.no_grad():
        expected = model.base_model(**text, labels=moved)
    found = model.train()(**given, labels=labels)
    torch.testing.assert_close(found.loss, expected.loss, **TIGHT)
    torch.testing.assert_close(found.logits, expected.logits, **TIGHT)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("case", ["t5 SEQ_2_SEQ_LM", "bart SEQ_2_SEQ_LM"])
def test_an_encoder_decoder(inside: Build, marked: Build, pasted: Build, rows: Build, case: str, side: str) -> None:
    model = inside(case)
    given, text = marked(rows("no"), side), pasted(rows("no"), side, model.prompt_token_ids())
    labels = torch.tensor([[5, 6], [7, 8], [9, 5]])
    with torch.no_grad():
        expected = model.base_model(**text, labels=labels)
        as_ids = model(**given, labels=labels)
    as_vectors = model.train()(**given, labels=labels)
    for output in (as_ids, as_vectors):
        torch.testing.assert_close(output.logits, expected.logits, **TIGHT)
        torch.testing.assert_close(output.loss, expected.loss, **TIGHT)
    ours = model.eval().generate(**given, max_new_tokens=5)
    assert torch.equal(ours, model.base_model.generate(**text, max_new_tokens=5))


def test_the_prompt_belongs_to_the_segment_it_stands_in(inside: Build, batch: Build) -> None:
    model, row = inside("bert SEQ_CLS"), [CLS, 5, 6, 7, 8]
    text = batch([[*row[:4], *model.prompt_token_ids(), *row[4:]]])
    with torch.no_grad():
        for segment in (0, 1):
            given = {"input_ids": torch.tensor([[*row[:4], PAD, *row[4:]]]), "attention_mask": torch.ones(1, 6).long()}
            given["attention_mask"][0, 4] = 0
            types = torch.tensor([[0, 0, 0, 0, segment, 1]])
            moved = torch.tensor([[0] * 4 + [segment] * PROMPT + [1]])
            expected = model.base_model(**text, token_type_ids=moved).logits
            torch.testing.assert_close(model(**given, token_type_ids=types).logits, expected, **TIGHT)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("case", ["bert SEQ_CLS", "bert TOKEN_CLS", "bert QUESTION_ANS", "t5 SEQ_2_SEQ_LM"])
def test_rows_that_mark_no_place_are_refused(
    inside: Build, batch: Build, rows: Build, case: str, training: bool
) -> None:
    model = inside(case).train(training)
    with pytest.raises(
        ValueError, match=r"row 0 of the batch marks no places for the prompt: .*`mark_prompt` write it"
    ):
        model(**batch(rows("all")), labels=torch.zeros(3, dtype=torch.long))


def test_a_saved_classifier_loads_again(inside: Build, bert: Build, marked: Build, rows: Build, tmp_path: Path) -> None:
    model, given = inside("bert SEQ_CLS"), marked(rows("all"), "right")
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(bert(BertForSequenceClassification), str(tmp_path)).eval()
    assert loaded.active_peft_config.prompt_position == "template"
    with torch.no_grad():
        torch.testing.assert_close(loaded(**given).logits, model(**given).logits, atol=0.0, rtol=0.0)
