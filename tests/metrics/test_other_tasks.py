"""Classifiers and encoder-decoders: the same measures, with the trained head on both sides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from transformers import BertForTokenClassification, GPT2ForSequenceClassification

from peft_interp.metrics.faithfulness import measure_faithfulness
from peft_interp.metrics.reading import read_prompt

Build = Callable[..., Any]


def classifier(request: Any, name: str) -> Any:
    options = (GPT2ForSequenceClassification,) if name == "gpt2" else ()
    return request.getfixturevalue(name)(*options, num_labels=3)


def classified(token_ids: Build) -> list[dict[str, Any]]:
    return [{"input_ids": ids[: 3 + i % 4], "labels": i % 3} for i, ids in enumerate(token_ids(9, 8).tolist())]


@pytest.mark.parametrize(("name", "side"), [("bert", "right"), ("gpt2", "right"), ("gpt2", "left")])
def test_a_readable_prompt_on_a_classifier(
    request: Any, readable: Build, words: Any, token_ids: Build, name: str, side: str
) -> None:
    model = readable(classifier(request, name), "SEQ_CLS")
    found = measure_faithfulness(model, words, classified(token_ids), padding_side=side, progress=False)
    assert found.rows == 9
    assert max(found.logit_mse, found.kl, found.js, found.loss_difference) <= 1e-5
    assert found.accuracy_difference == 0
    assert len(found.token_effects) == 4
    assert found.without.loss != pytest.approx(found.as_prompt.loss, abs=1e-4)


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_a_prompt_inside_marked_rows(request: Any, readable: Build, words: Any, token_ids: Build, name: str) -> None:
    task = "SEQ_2_SEQ_LM" if name == "t5" else "SEQ_CLS"
    base = request.getfixturevalue(name)() if name == "t5" else classifier(request, name)
    model = readable(base, task, prompt_position="template")
    rows: list[dict[str, Any]] = []
    for i, ids in enumerate(token_ids(9, 8).tolist()):
        place, length = 1 + i % 3, 4 + i % 4
        marked = {"input_ids": [*ids[:place], 0, *ids[place:length]], "labels": ids[6:7] if name == "t5" else i % 3}
        rows.append({**marked, "attention_mask": [1] * place + [0] + [1] * (length - place)})
    found = measure_faithfulness(model, words, rows, progress=False)
    assert found.rows == 9
    assert max(found.logit_mse, found.kl, found.js, found.loss_difference) <= 1e-5
    assert found.without.loss != pytest.approx(found.as_prompt.loss, abs=1e-4)
    losses = []
    for row in rows:
        place, ids = row["attention_mask"].index(0), row["input_ids"]
        text = torch.tensor([[*ids[:place], *model.prompt_token_ids(), *ids[place + 1 :]]])
        labels = torch.tensor([row["labels"]])
        with torch.no_grad():
            losses.append(model.base_model(input_ids=text, labels=labels).loss.item())
    assert found.as_text.loss == pytest.approx(sum(losses) / 9, abs=1e-5)


@torch.no_grad()
def test_a_stock_classifier_by_hand_with_a_trained_head(bert: Build, words: Any, token_ids: Build) -> None:
    model = get_peft_model(bert(num_labels=3), PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)).eval()
    for parameter in model.base_model.classifier.modules_to_save.parameters():
        parameter.add_(torch.randn_like(parameter))  # as training would
    rows = classified(token_ids)
    found = measure_faithfulness(model, words, rows, progress=False)
    losses, errors, right = [], [], 0
    prompt = read_prompt(model, words).ids
    for row in rows:
        acts = model(input_ids=torch.tensor([row["input_ids"]])).logits[0]
        says = model.base_model(input_ids=torch.tensor([[*prompt, *row["input_ids"]]])).logits[0]
        losses.append(-acts.log_softmax(-1)[row["labels"]].item())
        errors.append((acts - says).square().mean().item())
        right += int(acts.argmax()) == row["labels"]
    assert found.as_prompt.loss == pytest.approx(sum(losses) / 9, abs=1e-5)
    assert found.logit_mse == pytest.approx(sum(errors) / 9, abs=1e-5)
    assert found.as_prompt.accuracy == pytest.approx(right / 9)
    assert found.logit_mse > 1e-3


@pytest.mark.parametrize("kind", ["readable", "with_prompt"])
def test_an_encoder_decoder(request: Any, t5: Build, words: Any, token_ids: Build, kind: str) -> None:
    model = request.getfixturevalue(kind)(t5(), "SEQ_2_SEQ_LM").eval()
    rows = [
        {"input_ids": ids[: 3 + i % 4], "labels": ids[6 : 7 + i % 2]} for i, ids in enumerate(token_ids(6, 8).tolist())
    ]
    found = measure_faithfulness(model, words, rows, batch_size=4, progress=False)
    total = count = 0
    with torch.no_grad():
        for row in rows:
            loss = model(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]])).loss
            total, count = total + loss.item() * len(row["labels"]), count + len(row["labels"])
    assert found.as_prompt.loss == pytest.approx(total / count, abs=1e-5)
    if kind == "readable":
        assert max(found.logit_mse, found.kl, found.js, found.loss_difference) <= 1e-5
    else:
        assert found.logit_mse > 1e-5


def test_other_tasks_are_refused(bert: Build, readable: Build, words: Any, word_rows: Build) -> None:
    model = readable(bert(BertForTokenClassification, num_labels=3), "TOKEN_CLS")
    with pytest.raises(ValueError, match="`task_type='TOKEN_CLS'` is not compared with its text; use CAUSAL_LM"):
        measure_faithfulness(model, words, word_rows())


@pytest.mark.parametrize("kind", ["multi_label_classification", "regression"])
def test_classifiers_without_one_class_a_row_are_refused(
    bert: Build, readable: Build, words: Any, token_ids: Build, kind: str
) -> None:
    model = readable(bert(num_labels=3, problem_type=kind), "SEQ_CLS")
    with pytest.raises(ValueError, match=f"`problem_type='{kind}'` has no one class for each row"):
        measure_faithfulness(model, words, classified(token_ids), progress=False)


def test_several_labels_a_row_are_refused(bert: Build, readable: Build, words: Any, token_ids: Build) -> None:
    """Floats of 0 and 1 make transformers itself take the task for a multi-label one."""
    rows = [{**row, "labels": [0.0, 1.0, 1.0]} for row in classified(token_ids)]
    with pytest.raises(ValueError, match="row 0 has 3 `labels`; a classifier's row has one"):
        measure_faithfulness(readable(bert(num_labels=3), "SEQ_CLS"), words, rows, progress=False)
