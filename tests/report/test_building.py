"""`report_prompt` on real models: each kind of prompt gets the verdict it deserves; the model stays as it was."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import datasets
import pytest
import torch
from peft import (
    MultitaskPromptTuningConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from transformers import (
    AutoTokenizer,
    BertForSequenceClassification,
    DataCollatorForSeq2Seq,
    GPT2ForSequenceClassification,
)

from peft_interp import InterpPromptConfig, Verbalizer, embedded
from peft_interp.metrics.waywardness import measure_waywardness
from peft_interp.report import PromptReport, report_prompt

Build = Callable[..., Any]
QUESTION = "Is this film review positive or negative?"


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Sixty rows of the embedded sentiment test set."""
    tokenizer, task = embedded.load_tokenizer(), embedded.TASKS["sentiment"]
    data = embedded.load_data("sentiment")["test"].select(range(60))
    return [task.encode(tokenizer, row["sentence"], row["label"]) for row in data]


@pytest.fixture
def written() -> Build:
    """`written(text)`: the embedded model with a prompt of these tokens."""

    def build(text: str) -> PeftModel:
        start = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": text}
        config = InterpPromptConfig(task_type="CAUSAL_LM", tokenizer_name_or_path=embedded.MODEL_PATH, **start)
        return get_peft_model(embedded.load_model(), config)

    return build


@pytest.fixture
def reported(rows: list[dict[str, Any]]) -> Build:
    """`reported(model, rows=..., task=..., **options)`: a report on the sentiment task, quietly."""

    def build(
        model: PeftModel, data: Any = rows, task: Any = embedded.TASKS["sentiment"], **options: Any
    ) -> PromptReport:
        return report_prompt(model, embedded.load_tokenizer(), data, task, progress=False, **options)

    return build


def answers(report: PromptReport) -> dict[str, str]:
    return {verdict.question: verdict.answer for verdict in report.verdicts}


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_written_prompt_is_its_text_readable_and_helps(written: Build, reported: Build, side: str) -> None:
    report = reported(written(QUESTION), padding_side=side, token_effects=False)
    said = answers(report)
    assert {name: said[name] for name in ("faithful", "survives", "readable", "acts")} == dict.fromkeys(
        ("faithful", "survives", "readable", "acts"), "yes"
    )
    assert report.reading.text == QUESTION
    assert report.faithfulness is not None
    assert report.faithfulness.loss_difference < 1e-5
    assert report.context["label_words"] == ["terrible", "great"]
    assert report.context["rows"] == 60
    assert PromptReport.from_dict(report.to_dict()) == report


def test_a_repeated_word_is_not_readable(written: Build, reported: Build, rows: list[dict[str, Any]]) -> None:
    report = reported(written("great great great great great great"), rows[:12], token_effects=False)
    assert answers(report)["readable"] == "no"
    assert answers(report)["faithful"] == "yes"
    assert "great" in report.verdict("trust").words


def test_vectors_far_from_any_token_are_not_explained_by_them(reported: Build, rows: list[dict[str, Any]]) -> None:
    torch.manual_seed(0)
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=6, prompt_tuning_init="RANDOM")
    report = reported(get_peft_model(embedded.load_model(), config), rows[:24])
    said = answers(report)
    assert said["near"] == "no"
    assert said["faithful"] in ("no", "partly", "unknown")
    assert report.reading.method == "PROMPT_TUNING"


def test_waywardness_joins_on_request(reported: Build, rows: list[dict[str, Any]]) -> None:
    torch.manual_seed(0)
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2, prompt_tuning_init="RANDOM")
    model = get_peft_model(embedded.load_model(), config)
    report = reported(model, rows[:8], waywardness={"target_text": "apples", "steps": 5}, token_effects=False)
    assert report.waywardness is not None
    assert report.waywardness.target_text == "apples"
    assert report.verdict("evidence") is not None


def test_a_stock_prompt_trained_on_flipped_labels_is_called_out(reported: Build) -> None:
    """Its nearest tokens look harmless, lie near, are readable and work as text; the prompt does the opposite."""
    tokenizer, task = embedded.load_tokenizer(), embedded.TASKS["sentiment"]
    data = embedded.load_data("sentiment")
    wrong = [task.encode(tokenizer, row["sentence"], 1 - row["label"]) for row in data["train"]]
    wrong = [row for row in wrong if len(row["input_ids"]) <= 22]
    start = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": QUESTION, "num_virtual_tokens": 8}
    config = PromptTuningConfig(task_type="CAUSAL_LM", tokenizer_name_or_path=embedded.MODEL_PATH, **start)
    model = get_peft_model(embedded.load_model(), config)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    collate, draw = DataCollatorForSeq2Seq(tokenizer), random.Random(0)
    for _ in range(60):
        model(**collate(draw.sample(wrong, 16))).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    report = reported(model, token_effects=False)
    assert report.reading.text == QUESTION
    said = answers(report)
    assert {name: said[name] for name in ("faithful", "near", "survives", "readable", "acts")} == {
        **{"faithful": "no", "near": "yes", "survives": "yes", "readable": "yes"},
        "acts": "no",
    }
    words = report.verdict("faithful").words
    assert words.startswith("it acts against what its text does: accuracy 0.")
    assert report.faithfulness.as_text.accuracy > 0.7 > 0.4 > report.faithfulness.as_prompt.accuracy
    for shown in (report.to_html(), report.to_markdown(), " ".join(report.to_text().split())):
        assert "acts against what its text does" in shown


def test_a_report_names_no_path_of_this_machine(written: Build, reported: Build, rows: list[dict[str, Any]]) -> None:
    """It is made to be passed on; how to load the base model is said all the same."""
    report = reported(written(QUESTION), rows[:8])
    assert report.context["base_model"] == "embedded model of peft_interp"
    page = report.to_html()
    assert embedded.MODEL_PATH not in page + report.to_markdown() + report.to_text(400) + json.dumps(report.to_dict())
    assert "base = embedded.load_model()" in page
    assert "import peft_interp" in page


def test_without_data_the_text_is_still_judged(written: Build, reported: Build) -> None:
    said = answers(reported(written(QUESTION), None))
    assert said == {"faithful": "unknown", "readable": "yes", "acts": "unknown"}


def test_prefix_tuning_has_no_text(reported: Build) -> None:
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    report = reported(get_peft_model(embedded.load_model(), config))
    assert answers(report) == {"faithful": "no", "readable": "unknown", "acts": "unknown"}
    for text in (report.to_html(), report.to_markdown(), report.to_text()):
        assert "no text" in text


def test_a_rival_may_be_a_tuple_and_context_is_kept(written: Build, reported: Build) -> None:
    report = reported(written(QUESTION), None, rivals=[("PEZ", 0.77, 6.8)], context={"data": "films"})
    assert report.rivals[0].name == "PEZ"
    assert report.context["data"] == "films"


def test_a_judge_is_asked_as_well(written: Build, reported: Build) -> None:
    report = reported(written(QUESTION), None, perplexity_model=embedded.load_model())
    assert report.scrutability is not None
    assert report.scrutability.measures["judge_gap"].value == pytest.approx(0.0, abs=1e-4)


def test_the_model_is_left_as_it_was(written: Build, reported: Build, rows: list[dict[str, Any]]) -> None:
    model = written(QUESTION).train()
    model.prompt_token_ids()  # the ids are looked up when first asked for
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    reported(model, rows[:8])
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)
    assert [module.training for module in model.modules()] == modes


def test_another_text_is_refused(written: Build, reported: Build, rows: list[dict[str, Any]]) -> None:
    """It would be compared, while the prompt's own was shown and judged."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'text'"):
        reported(written(QUESTION), rows[:4], text="other")


@pytest.mark.parametrize(
    ("slip", "message"),
    [
        (lambda task, raw: (raw, task), r"row 0 has no column \['input_ids', 'labels'\], only .*`Verbalizer.encode_"),
        (lambda task, raw: (list(raw["sentence"]), task), "row 0 is a str and must be a dict; pass tokenised rows"),
        (lambda task, raw: (datasets.DatasetDict(test=raw), task), "`rows` is a DatasetDict and must be a data set"),
        (lambda task, raw: (task,), "`rows` is a Verbalizer and must be a data set or a list of dicts"),
        (lambda task, raw: (None, raw), r"`verbalizer` is a Dataset and must be a `Verbalizer`; pass template and"),
        (lambda task, raw: (None, ["bad", "good"]), "`verbalizer` is a list and must be a `Verbalizer`; pass template"),
        (
            lambda task, raw: (None, Verbalizer("{text} {prompt}", task.label_words)),
            "the template '{text} {prompt}' has the prompt at the end, but the adapter's `prompt_position='start'`; ",
        ),
    ],
)
def test_slips_are_named_before_anything_is_measured(written: Build, slip: Build, message: str) -> None:
    given = slip(embedded.TASKS["sentiment"], embedded.load_data("sentiment")["test"].select(range(4)))
    with pytest.raises(ValueError, match=message):
        report_prompt(written(QUESTION), embedded.load_tokenizer(), *given, progress=False)


def test_swapped_arguments_are_named(written: Build, rows: list[dict[str, Any]]) -> None:
    model, tokenizer, task = written(QUESTION), embedded.load_tokenizer(), embedded.TASKS["sentiment"]
    with pytest.raises(ValueError, match=f"`model` is {type(tokenizer).__name__}, which has no prompt adapter; pass"):
        report_prompt(tokenizer, model, rows, task)
    for wrong in (None, rows, model, embedded.MODEL_PATH):
        with pytest.raises(ValueError, match=f"`tokenizer` is a {type(wrong).__name__} and must be the model's own"):
            report_prompt(model, wrong, rows, task)


def test_waywardness_is_tested_for_a_prompt_of_tokens_as_well(
    written: Build, reported: Build, rows: list[dict[str, Any]]
) -> None:
    wayward = {"target_text": "apples", "steps": 2}
    report = reported(written(QUESTION), rows[:8], waywardness=wayward, token_effects=False)
    assert report.waywardness is not None
    assert report.verdict("evidence") is None  # the prompt is its tokens
    assert "accuracy all the same" in report.to_text()


def test_waywardness_without_data_is_not_dropped_without_a_word(written: Build, reported: Build) -> None:
    report = reported(written(QUESTION), None, waywardness=True)
    assert report.verdict("evidence").answer == "unknown"
    assert report.verdict("evidence").words == "asked for but not tested: no data given"
    assert "not tested: no data given" in report.to_html()


def test_waywardness_stands_where_the_prompt_stands(reported: Build) -> None:
    tokenizer, words = embedded.load_tokenizer(), embedded.TASKS["sentiment"].label_words
    task = Verbalizer("{text} {prompt}", words)
    data = embedded.load_data("sentiment")["test"].select(range(8))
    rows = [task.encode(tokenizer, row["sentence"], row["label"]) for row in data]
    start = {"prompt_tuning_init": "RANDOM", "projection_metric": "none", "prompt_position": "end"}
    config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, **start)
    model = get_peft_model(embedded.load_model(), config)
    quick = {"target_text": "The review is", "steps": 0}
    report = reported(model, rows, task, waywardness=quick, token_effects=False)
    after = measure_waywardness(
        embedded.load_model(), tokenizer, rows[0::2], "The review is", task.label_token_ids(tokenizer),
        steps=0, eval_rows=rows[1::2], position="end", progress=False,
    )  # fmt: skip
    assert report.waywardness == after


@pytest.mark.parametrize("form", ["list", "torch"])
@pytest.mark.parametrize("model_class", [BertForSequenceClassification, GPT2ForSequenceClassification])
@pytest.mark.filterwarnings("ignore:.*pad_token_id")
def test_classifiers_are_reported_in_any_format(
    bert: Build, gpt2: Build, with_prompt: Build, token_ids: Build, tokenizer_dir: Any, form: str, model_class: Any
) -> None:
    """A torch-formatted data set gives labels of no dimension. Their text is judged by whom the reader names."""
    words = AutoTokenizer.from_pretrained(tokenizer_dir)
    base = (bert if model_class is BertForSequenceClassification else gpt2)(model_class, num_labels=2)
    rows = [{"input_ids": ids, "labels": i % 2} for i, ids in enumerate(token_ids(6, 5).tolist())]
    data = datasets.Dataset.from_list(rows).with_format("torch") if form == "torch" else rows
    model = with_prompt(base, "SEQ_CLS")
    report = report_prompt(model, words, data, progress=False, waywardness=True)
    assert report.faithfulness.rows == 6
    assert report.reading.text
    assert "pass one with `perplexity_model=`" in report.verdict("readable").words
    assert report.verdict("evidence").words.endswith("the base model is no causal language model")
    assert "LABEL_1" in report.to_html()


def test_multitask_prompt_tuning_is_told_why_it_has_no_text(reported: Build) -> None:
    config = MultitaskPromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, num_tasks=2)
    report = reported(get_peft_model(embedded.load_model(), config), None)
    for text in (report.to_html(), report.to_markdown(), " ".join(report.to_text().split())):
        assert "another prompt for each task id" in text
        assert "trains no vectors" not in text
