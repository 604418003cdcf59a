"""A hand-written prompt judged without an adapter, and prompts held against each other on the same rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, PromptTuningConfig, get_peft_model
from transformers import BertForSequenceClassification, T5ForConditionalGeneration

from peft_interp import (
    InterpPromptConfig,
    PromptReport,
    Verbalizer,
    compare_prompts,
    embedded,
    report_prompt,
    report_text,
)
from peft_interp.report import PromptComparison

Build = Callable[..., Any]
QUESTION = "Is this film review positive or negative?"
TASK = embedded.TASKS["sentiment"]


@pytest.fixture(scope="module")
def base() -> Any:
    return embedded.load_model()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return embedded.load_tokenizer()


@pytest.fixture(scope="module")
def rows(tokenizer: Any) -> list[dict[str, Any]]:
    data = embedded.load_data("sentiment")["test"].select(range(60))
    return [TASK.encode(tokenizer, row["sentence"], row["label"]) for row in data]


def adapter(base: Any, text: str, **options: Any) -> PeftModel:
    start = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": text}
    config = InterpPromptConfig(task_type="CAUSAL_LM", tokenizer_name_or_path=embedded.MODEL_PATH, **start, **options)
    return get_peft_model(base, config)


def test_a_text_is_measured_as_the_adapter_that_holds_it(base: Any, tokenizer: Any, rows: Any) -> None:
    by_hand = report_text(base, tokenizer, QUESTION, rows, TASK, progress=False)
    by_adapter = report_prompt(adapter(embedded.load_model(), QUESTION), tokenizer, rows, TASK, progress=False)
    mine, theirs = by_hand.faithfulness, by_adapter.faithfulness
    assert mine.as_text.loss == pytest.approx(theirs.as_text.loss, abs=1e-5)
    assert mine.as_text.accuracy == theirs.as_text.accuracy
    assert mine.without.loss == pytest.approx(theirs.without.loss, abs=1e-5)
    assert [e.kl for e in mine.token_effects] == pytest.approx([e.kl for e in theirs.token_effects], abs=1e-5)
    assert mine.paired.gained_accuracy.mean == pytest.approx(theirs.paired.gained_accuracy.mean)
    assert by_hand.scrutability == by_adapter.scrutability
    assert by_hand.verdict("faithful") is None
    assert by_hand.verdict("acts") == by_adapter.verdict("acts")
    assert by_hand.reading.ids == by_adapter.reading.ids


def test_the_report_of_a_text_speaks_of_no_adapter(base: Any, tokenizer: Any, rows: Any) -> None:
    report = report_text(base, tokenizer, QUESTION, rows[:16], TASK, progress=False, token_effects=False)
    assert PromptReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    for shown in (report.to_html(), report.to_markdown(), report.to_text()):
        assert "accuracy as prompt" not in shown
        assert "loss as prompt" not in shown
        assert "from_pretrained" not in shown
        assert "token error rate" not in shown
    assert report.reading.method == "TEXT"
    assert report.context["base_model"] == "embedded model of peft_interp"


def test_a_text_at_the_end_brings_its_blank(base: Any, tokenizer: Any) -> None:
    task = Verbalizer("{text} {prompt}", TASK.label_words)
    data = embedded.load_data("sentiment")["test"].select(range(12))
    rows = [task.encode(tokenizer, row["sentence"], row["label"]) for row in data]
    found = [report_text(base, tokenizer, text, rows, task, progress=False) for text in ("It was", " It was")]
    assert found[0].faithfulness == found[1].faithfulness
    assert found[0].reading.text == " It was"
    after = adapter(embedded.load_model(), " It was", prompt_position="end")
    theirs = report_prompt(after, tokenizer, rows, task, progress=False).faithfulness
    assert found[0].faithfulness.as_text.loss == pytest.approx(theirs.as_prompt.loss, abs=1e-5)


def test_without_rows_the_text_is_still_judged(base: Any, tokenizer: Any) -> None:
    report = report_text(base, tokenizer, "great great great great great", progress=False)
    assert report.verdict("readable").answer == "no"
    assert report.verdict("acts").answer == "unknown"


def test_other_tasks_take_texts_as_well(bert: Build, t5: Build, tokenizer_dir: Path) -> None:
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(tokenizer_dir)
    classes = [{"input_ids": [1, 5 + i, 9], "labels": i % 2} for i in range(6)]
    report = report_text(bert(BertForSequenceClassification, num_labels=2), words, "w7 w8", classes, progress=False)
    assert report.faithfulness.as_text.accuracy is not None
    pairs = [{"input_ids": [5 + i, 9], "labels": [6, 7]} for i in range(6)]
    model: T5ForConditionalGeneration = t5()
    assert report_text(model, words, "w7 w8", pairs, progress=False).faithfulness.rows == 6


@pytest.mark.parametrize("text", ["", None, 7])
def test_what_is_no_text_is_refused(base: Any, tokenizer: Any, text: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="text"):
        report_text(base, tokenizer, text, progress=False)


# -- comparison --


def test_prompts_are_compared_row_by_row(base: Any, tokenizer: Any, rows: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    soft = get_peft_model(
        base, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, prompt_tuning_init="RANDOM")
    )
    given = {"question": QUESTION, "same": adapter(base, QUESTION), "soft": soft}
    found = compare_prompts(base, tokenizer, given, rows, TASK, progress=False)
    assert {prompt.name for prompt in found.prompts} == {*given, "no prompt"}
    assert found.rows == 60
    same = found.difference("question", "same")
    assert abs(same.loss.mean) < 1e-5
    assert same.accuracy.mean == 0
    assert same.accuracy.interval()[0] < 0 < same.accuracy.interval()[1]
    known = report_text(base, tokenizer, QUESTION, rows, TASK, progress=False, token_effects=False).faithfulness
    question = next(prompt for prompt in found.prompts if prompt.name == "question")
    assert question.accuracy.mean == known.as_text.accuracy
    assert question.loss.mean == pytest.approx(known.as_text.loss, abs=1e-5)
    gained = found.difference("question", "no prompt")
    assert gained.accuracy == known.paired.gained_accuracy
    assert PromptComparison.load(found.save(tmp_path / "comparison")) == found
    assert sorted(path.suffix for path in (tmp_path / "comparison").iterdir()) == [".html", ".json", ".md", ".txt"]
    turned = found.difference("no prompt", "question")
    assert turned.accuracy.mean == -gained.accuracy.mean


def test_the_conclusion_says_what_rows_show(base: Any, tokenizer: Any, rows: Any) -> None:
    found = compare_prompts(
        base, tokenizer, [QUESTION, "Is this film review positive or negative"], rows, TASK, progress=False
    )
    assert "60 rows do not tell it from" in found.conclusion()
    assert '"no prompt"' in found.conclusion()
    assert len(repr(found)) < 200
    few = compare_prompts(base, tokenizer, [QUESTION, "Review:"], rows[:6], TASK, progress=False)
    assert few.conclusion().startswith("6 rows do not show that any of the 3")


def test_adapters_of_one_model_are_told_by_their_names(base: Any, tokenizer: Any, rows: Any) -> None:
    model = adapter(base, QUESTION)
    start = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "count the apples"}
    model.add_adapter(
        "other", InterpPromptConfig(task_type="CAUSAL_LM", tokenizer_name_or_path=embedded.MODEL_PATH, **start)
    )
    found = compare_prompts(base, tokenizer, [(model, "default"), (model, "other")], rows[:20], TASK, progress=False)
    assert {prompt.name: prompt.text for prompt in found.prompts} == {
        "default": QUESTION, "other": "count the apples", "no prompt": "",
    }  # fmt: skip
    assert model.active_adapter == "default"


def test_models_are_left_as_they_were(base: Any, tokenizer: Any, rows: Any) -> None:
    model = adapter(base, QUESTION).train()
    modes = [module.training for module in model.modules()]
    compare_prompts(base, tokenizer, [model, QUESTION], rows[:8], TASK, progress=False)
    assert [module.training for module in model.modules()] == modes
    model.eval()


def test_slips_are_named(base: Any, tokenizer: Any, rows: Any) -> None:
    for wrong in (QUESTION, [], {}):
        with pytest.raises(ValueError, match="`prompts` must be a list of texts and adapters"):
            compare_prompts(base, tokenizer, wrong, rows, TASK, progress=False)
    with pytest.raises(ValueError, match="a prompt is a int and must be a text or a `PeftModel`"):
        compare_prompts(base, tokenizer, [7], rows, TASK, progress=False)
    with pytest.raises(ValueError, match="'default' is on another base model than `model`"):
        compare_prompts(base, tokenizer, [adapter(embedded.load_model(), QUESTION)], rows, TASK, progress=False)


@pytest.mark.parametrize("form", ["to_html", "to_markdown", "to_text"])
def test_every_form_has_prompts_differences_and_intervals(base: Any, tokenizer: Any, rows: Any, form: str) -> None:
    found = compare_prompts(base, tokenizer, {"one": QUESTION, "two": "Review:"}, rows[:20], TASK, progress=False)
    shown = " ".join(getattr(found, form)().split())
    assert found.conclusion().split(";")[0].split('"')[0] in shown
    for pair in found.differences:
        assert f"{pair.first} less {pair.second}" in shown
