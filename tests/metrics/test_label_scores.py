"""A planted label prior is found and removed, for adapters, texts and nothing; what is kept with a prompt acts."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, PromptTuningConfig, get_peft_model
from torch import nn

from peft_interp import (
    InterpPromptConfig,
    Verbalizer,
    calibrate,
    classify,
    compare_prompts,
    embedded,
    measure_faithfulness,
    measure_label_prior,
    report_prompt,
    report_text,
)
from peft_interp.report.prompt_report import PromptReport
from peft_interp.text.rows import row_digest

WORDS = ("terrible", "great")
TEXT = "Is this film review positive or negative?"
PLANTED = 6.0  # nats on "great", whatever the text


def verbalizer(calibration: str = "batch") -> Verbalizer:
    return Verbalizer("{prompt} {text} It was", WORDS, calibration=calibration)


RAW = verbalizer("none")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return embedded.load_tokenizer()


@pytest.fixture(scope="module")
def rows(tokenizer: Any) -> dict[str, Any]:
    data = embedded.load_data("sentiment")
    cut = {"train": data["train"].shuffle(seed=0).select(range(48)), "test": data["test"].select(range(60))}
    return {name: RAW.encode_dataset(tokenizer, split) for name, split in cut.items()}


def base(tokenizer: Any, planted: float = 0.0) -> Any:
    model = embedded.load_model()
    bias = torch.zeros(model.lm_head.out_features)
    bias[RAW.label_token_ids(tokenizer)[1]] = planted
    model.lm_head.bias = nn.Parameter(bias, requires_grad=False)
    return model


def prompted(tokenizer: Any, planted: float = 0.0, soft: bool = False) -> Any:
    metric = {"projection_metric": "none"} if soft else {}
    start = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": TEXT}
    config = InterpPromptConfig(
        task_type="CAUSAL_LM", tokenizer_name_or_path=embedded.MODEL_PATH, init_text_fit="warn", **start, **metric
    )
    return get_peft_model(base(tokenizer, planted), config)


@pytest.mark.parametrize("calibration", ["batch", "content_free", "fitted"])
@pytest.mark.parametrize("text", [None, TEXT, ""])
def test_a_planted_prior_is_found(tokenizer: Any, rows: Any, calibration: str, text: str | None) -> None:
    ask = verbalizer(calibration)
    given = None if calibration == "content_free" else rows["train"]
    plain, moved = (
        calibrate(prompted(tokenizer, planted), tokenizer, given, ask, text, progress=False)
        for planted in (0.0, PLANTED)
    )
    found = [now - before for now, before in zip(moved.values, plain.values, strict=True)]
    tolerance = 1e-3 if calibration == "batch" else 0.2  # a penalty, and means of probabilities, are not linear
    assert found == pytest.approx([PLANTED / 2, -PLANTED / 2], abs=tolerance)
    assert moved.words == WORDS
    assert moved.rows == (3 if calibration == "content_free" else 48)


def test_the_numbers_are_those_of_each_row_alone(tokenizer: Any, rows: Any) -> None:
    model = prompted(tokenizer).eval()
    ids = RAW.label_token_ids(tokenizer)
    scores = []
    for row in rows["train"]:
        with torch.no_grad():
            given = torch.tensor([row["input_ids"][:-1]])
            logits = model(input_ids=given, attention_mask=torch.ones_like(given)).logits[0, -1, ids]
        scores.append(logits.log_softmax(-1))
    mean = torch.stack(scores).mean(0)
    wanted = (mean.mean() - mean).tolist()
    assert calibrate(model, tokenizer, rows["train"], verbalizer(), progress=False).values == pytest.approx(
        wanted, abs=1e-4
    )


def test_what_is_kept_makes_a_single_text_right_again(tokenizer: Any, rows: Any, tmp_path: Path) -> None:
    texts = ["A wonderful film.", "Dull, and far too long."]
    clean, model = prompted(tokenizer), prompted(tokenizer, PLANTED)
    wanted = [answer["label"] for answer in classify(clean, tokenizer, texts, RAW, progress=False)]
    assert wanted == ["great", "terrible"]
    assert [classify(model, tokenizer, text, RAW, progress=False)[0]["label"] for text in texts] == ["great", "great"]
    said = r"which are not kept with it; estimate them once: `model.keep_label_bias\(calibrate\(.*, or pass `label_bias"
    with pytest.raises(ValueError, match=said):
        classify(model, tokenizer, texts, verbalizer())
    bias = calibrate(model, tokenizer, rows["train"], verbalizer(), progress=False)
    given = classify(model, tokenizer, texts, RAW, progress=False, label_bias=bias)
    model.keep_label_bias(bias)
    for ask in (RAW, verbalizer()):
        found = [classify(model, tokenizer, text, ask, progress=False)[0] for text in texts]
        assert [answer["label"] for answer in found] == wanted
        assert [answer["score"] for answer in found] == pytest.approx([answer["score"] for answer in given])
    model.save_pretrained(tmp_path)
    loaded: Any = PeftModel.from_pretrained(base(tokenizer, PLANTED), str(tmp_path))
    assert loaded.label_bias() == bias
    assert [a["label"] for a in classify(loaded, tokenizer, texts, RAW, progress=False)] == wanted


def test_numbers_of_another_prompt_or_other_words_do_not_act(tokenizer: Any, rows: Any) -> None:
    model = prompted(tokenizer, PLANTED)
    model.keep_label_bias(calibrate(model, tokenizer, rows["train"], verbalizer(), progress=False))
    other = Verbalizer("{prompt} {text} It is", WORDS)
    with pytest.warns(UserWarning, match="is for the label words"):
        (answer,) = classify(model, tokenizer, "Dull.", other, progress=False)
    assert answer["label"] == "great"
    with pytest.raises(ValueError, match=r"is a bias for the label words .*, which is not for the label words"):
        classify(model, tokenizer, "Dull.", other, label_bias=model.label_bias())
    by_first = replace(RAW, first_token=True)
    with pytest.raises(ValueError, match=r"which is not for the label words .*, by first tokens; pass what"):
        classify(model, tokenizer, "Dull.", by_first, label_bias=model.label_bias())
    encoder = model.prompt_encoder["default"]
    ids = list(reversed(model.prompt_token_ids()))
    encoder.set_ids(torch.tensor(ids))  # as training moves it
    with pytest.warns(UserWarning, match="is that of another prompt and is not used"):
        assert model.label_bias() is None
    model.use_prompt(ids)
    assert model.label_bias() is None
    with pytest.raises(ValueError, match="must be what `calibrate` returned, or None"):
        model.keep_label_bias([1.0, 2.0])


def test_measures_take_the_numbers_for_answers_and_for_nothing_else(tokenizer: Any, rows: Any) -> None:
    ids, options = RAW.label_token_ids(tokenizer), {"token_effects": False, "progress": False}
    clean, model = prompted(tokenizer), prompted(tokenizer, PLANTED)
    bias = calibrate(model, tokenizer, rows["train"], verbalizer(), progress=False)
    own = calibrate(clean, tokenizer, rows["train"], verbalizer(), progress=False)
    raw = measure_faithfulness(model, tokenizer, rows["test"], ids, **options)
    found = measure_faithfulness(model, tokenizer, rows["test"], ids, label_bias=bias.values, **options)
    wanted = measure_faithfulness(clean, tokenizer, rows["test"], ids, label_bias=own.values, **options)
    assert raw.as_prompt.accuracy == pytest.approx(0.5, abs=0.1)
    assert found.as_prompt.accuracy == found.as_text.accuracy == wanted.as_prompt.accuracy
    assert found.as_prompt.accuracy > 0.7
    assert found.answers.as_prompt == pytest.approx(wanted.answers.as_prompt, abs=1e-4)
    assert (found.without, found.kl, found.as_prompt.loss) == (raw.without, raw.kl, raw.as_prompt.loss)
    assert (found.label_bias, found.without_bias) == (bias.values, None)
    alone = calibrate(model, tokenizer, rows["train"], verbalizer(), text="", progress=False).values
    both = measure_faithfulness(
        model, tokenizer, rows["test"], ids, label_bias=bias.values, without_bias=alone, **options
    )
    prior = measure_label_prior(model, tokenizer, rows["test"], verbalizer(), rows["train"], progress=False)
    assert (both.as_prompt, both.without.loss) == (found.as_prompt, raw.without.loss)
    assert both.without.accuracy == prior.without.calibrated.mean > raw.without.accuracy
    assert both.paired.gained_accuracy.mean == pytest.approx(prior.beyond.mean)
    for wrong in ([1.0], [math.nan, 0.0]):
        with pytest.raises(ValueError, match="must be one finite number for each of the 2 label words"):
            measure_faithfulness(model, tokenizer, rows["test"], ids, label_bias=wrong, **options)


def test_a_planted_prior_is_the_gain_of_numbers_alone(tokenizer: Any, rows: Any) -> None:
    model = prompted(tokenizer, PLANTED, soft=True)
    with torch.no_grad():
        model.prompt_encoder["default"].latent += 0.02 * torch.randn_like(model.prompt_encoder["default"].latent)
    found = measure_label_prior(model, tokenizer, rows["test"], verbalizer(), rows["train"], progress=False)
    assert found.without.accuracy.mean == pytest.approx(0.5, abs=0.1)
    assert found.without.calibrated.mean > found.without.accuracy.mean
    assert found.prior.mean == pytest.approx(found.without.calibrated.mean - found.without.accuracy.mean)
    assert found.gain.mean == pytest.approx(found.as_prompt.accuracy.mean - found.without.accuracy.mean)
    assert found.beyond.mean == pytest.approx(found.as_prompt.calibrated.mean - found.without.calibrated.mean)
    assert found.as_text is not None
    assert found.rows == 60
    clean = measure_label_prior(
        base(tokenizer), tokenizer, rows["test"], verbalizer(), rows["train"], text=TEXT, progress=False
    )
    moved = measure_label_prior(
        base(tokenizer, PLANTED), tokenizer, rows["test"], verbalizer(), rows["train"], text=TEXT, progress=False
    )
    assert clean.as_text is None
    assert moved.as_prompt.calibrated == clean.as_prompt.calibrated
    assert moved.without.calibrated == clean.without.calibrated


def test_a_report_tells_numbers_and_prior_in_every_form(tokenizer: Any, rows: Any) -> None:
    model = prompted(tokenizer, PLANTED)
    options = {"token_effects": False, "progress": False}
    report = report_prompt(model, tokenizer, rows["test"], verbalizer(), training_rows=rows["train"], **options)
    assert report.label_bias is not None
    assert report.faithfulness.label_bias == report.label_bias.values
    assert report.label_prior.as_prompt.calibrated.mean == report.faithfulness.as_prompt.accuracy
    numbers = f"terrible {report.label_bias.values[0]:+.2f}, great {report.label_bias.values[1]:+.2f}"
    for shown in (report.to_markdown(), report.to_html(), " ".join(report.to_text(200).split())):
        assert "his prompt needs 2 numbers besides its text" in shown
        assert numbers in shown.replace("&#x2B;", "+").replace("&#43;", "+")
        assert "Is the gain more than the label prior?" in shown
        assert "accuracy without, calibrated" in shown
    assert report.verdict("prior").answer in ("yes", "no", "unknown")
    assert "(calibrated " in report.verdict("prior").words
    again = PromptReport.from_dict(report.to_dict())
    assert again.to_dict() == report.to_dict()
    stored = report.to_dict()
    stored["label_prior"]["without"]["bias"] = [1.0]
    with pytest.raises(ValueError, match="has not one number for each label word"):
        PromptReport.from_dict(stored)
    model.keep_label_bias(report.label_bias)
    kept = report_prompt(model, tokenizer, rows["test"], RAW, **options)
    assert (kept.label_bias, kept.label_prior) == (report.label_bias, None)
    assert kept.faithfulness.as_prompt.accuracy == report.faithfulness.as_prompt.accuracy
    assert report_prompt(model, tokenizer, rows["test"], RAW, training_rows=rows["train"], **options).verdicts == (
        report.verdicts
    )
    text = report_text(model, tokenizer, TEXT, rows["test"], verbalizer(), training_rows=rows["train"], **options)
    assert text.label_prior.as_prompt == report.label_prior.as_prompt


def test_what_numbers_gain_is_not_said_to_be_the_prompts(tokenizer: Any, rows: Any) -> None:
    """A prompt of unrelated words with its numbers, beside no prompt: only beside no prompt's own is it told apart."""
    start = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "Please count the apples on the table"}
    config = InterpPromptConfig(task_type="CAUSAL_LM", tokenizer_name_or_path=embedded.MODEL_PATH, **start)
    model, options = get_peft_model(base(tokenizer, PLANTED), config), {"token_effects": False, "progress": False}
    model.keep_label_bias(calibrate(model, tokenizer, rows["train"], verbalizer(), progress=False))
    alone = report_prompt(model, tokenizer, rows["test"], RAW, **options)
    assert alone.faithfulness.paired.gained_accuracy.interval()[0] > 0
    assert alone.verdict("acts").answer == "unknown"
    assert "what no prompt does with its own was not measured: give training rows" in alone.verdict("acts").words
    assert "no prompt at all, without numbers for the label words" in alone.to_markdown()
    assert "No prompt has no numbers for the label words." in alone.to_html()
    told = report_prompt(model, tokenizer, rows["test"], RAW, training_rows=rows["train"], **options)
    assert told.faithfulness.without.accuracy == told.label_prior.without.calibrated.mean
    assert told.verdict("acts").answer in ("no", "unknown")
    assert "each with its own numbers for the label words" in told.verdict("acts").words
    assert "no prompt at all, with numbers for the label words" in told.to_markdown()
    with pytest.warns(UserWarning, match="'default' acts with the numbers for the label words that are kept with it"):
        compare_prompts(model, tokenizer, [model], rows["test"], RAW, progress=False)


def test_numbers_remember_their_rows(tokenizer: Any, rows: Any) -> None:
    model, options = prompted(tokenizer, PLANTED), {"token_effects": False, "progress": False}
    model.keep_label_bias(calibrate(model, tokenizer, rows["test"], verbalizer(), progress=False))
    assert len(model.label_bias().row_digests) == 60
    said = "60 of the 60 rows that the prompt's label bias was estimated on are among the rows that are measured"
    with pytest.warns(UserWarning, match=said):
        report_prompt(model, tokenizer, rows["test"], RAW, **options)
    with pytest.warns(UserWarning, match=said):
        report_prompt(model, tokenizer, rows["test"], RAW, label_bias=model.label_bias(), **options)
    turned = [{**row, "labels": [-100] * (len(row["labels"]) - 1) + [7]} for row in rows["test"]]
    assert [row_digest(row) for row in turned] == list(model.label_bias().row_digests)  # whatever the labels are
    padded = [{name: [pad, *row[name]] for name, pad in (*PADS, ("labels", -100))} for row in rows["test"]]
    assert [row_digest(row) for row in padded] == list(model.label_bias().row_digests)
    assert calibrate(model, tokenizer, None, verbalizer("content_free"), progress=False).row_digests == ()


PADS = (("input_ids", 0), ("attention_mask", 0))


def test_compared_prompts_each_have_their_own_numbers(tokenizer: Any, rows: Any) -> None:
    model = prompted(tokenizer, PLANTED)
    prompts = {"ours": model, "by hand": "Movie review:"}
    found = compare_prompts(
        model, tokenizer, prompts, rows["test"], verbalizer(), training_rows=rows["train"], progress=False
    )
    by_name = {prompt.name: prompt for prompt in found.prompts}
    assert set(by_name) == {"ours", "by hand", "no prompt"}
    assert len({prompt.label_bias for prompt in found.prompts}) == 3
    alone = measure_label_prior(model, tokenizer, rows["test"], verbalizer(), rows["train"], progress=False)
    assert by_name["ours"].accuracy.mean == alone.as_prompt.calibrated.mean
    assert by_name["no prompt"].accuracy.mean == alone.without.calibrated.mean
    assert 'with "by hand": terrible +' in found.to_markdown().replace("&#43;", "+").replace("&#58;", ":").replace(
        "\\", ""
    )
    assert type(found).from_dict(found.to_dict()) == found
    with pytest.raises(ValueError, match="needs training rows"):
        compare_prompts(model, tokenizer, prompts, rows["test"], verbalizer(), progress=False)


def test_stock_prompts_are_calibrated_too(tokenizer: Any, rows: Any) -> None:
    start = {
        "prompt_tuning_init": "TEXT",
        "prompt_tuning_init_text": TEXT,
        "tokenizer_name_or_path": embedded.MODEL_PATH,
    }
    stock = get_peft_model(
        base(tokenizer, PLANTED), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=8, **start)
    )
    bias = calibrate(stock, tokenizer, rows["train"], verbalizer(), progress=False)
    ours = calibrate(prompted(tokenizer, PLANTED), tokenizer, rows["train"], verbalizer(), progress=False)
    assert bias.values == pytest.approx(ours.values, abs=1e-3)
    (answer,) = classify(stock, tokenizer, "Dull, and far too long.", RAW, progress=False, label_bias=bias)
    assert answer["label"] == "terrible"
    with pytest.raises(
        ValueError, match="are not kept with it; estimate them once: pass `label_bias=calibrate"
    ) as told:
        classify(stock, tokenizer, "Dull.", verbalizer())
    assert "keep_label_bias" not in str(told.value)  # which it does not have


def test_mistakes_are_named(tokenizer: Any, rows: Any) -> None:
    model, train, test = prompted(tokenizer), rows["train"], rows["test"]
    with pytest.raises(ValueError, match="`calibration='none'` estimates nothing"):
        calibrate(model, tokenizer, train, RAW)
    with pytest.raises(ValueError, match="5 calibration rows say too little"):
        calibrate(model, tokenizer, train.select(range(5)), verbalizer())
    with pytest.raises(ValueError, match="needs training rows; pass them, or use 'content_free'"):
        calibrate(model, tokenizer, None, verbalizer())
    great = RAW.label_token_ids(tokenizer)[1]
    one = [row for row in train if row["labels"][-1] == great]
    with pytest.warns(UserWarning, match=f"all {len(one)} calibration rows have the same label, so .* give rows of ev"):
        assert calibrate(model, tokenizer, one, verbalizer(), progress=False).rows == len(one)
    with pytest.raises(ValueError, match=f"all {len(one)} calibration rows have the label 1"):
        calibrate(model, tokenizer, one, verbalizer("fitted"), progress=False)
    with pytest.raises(ValueError, match="48 of the 48 calibration rows are among the rows that are measured"):
        measure_label_prior(model, tokenizer, train, verbalizer(), train)
    mixed = [*train.select(range(40)), *test.select(range(3))]
    with pytest.warns(UserWarning, match="3 of the 43 calibration rows are among"):
        measure_label_prior(model, tokenizer, test, verbalizer(), mixed, progress=False)
    broken = base(tokenizer, math.inf)
    with pytest.raises(ValueError, match="scores on the calibration rows are not finite"):
        calibrate(broken, tokenizer, train, verbalizer(), text=TEXT, progress=False)
    others = Verbalizer(RAW.template, ("bad", "good"), calibration="batch")
    with pytest.raises(ValueError, match="none of the label words'"):
        calibrate(model, tokenizer, train, others, progress=False)


def test_reading_and_saving_without_numbers_says_nothing(tokenizer: Any, tmp_path: Path) -> None:
    model = prompted(tokenizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.label_bias() is None
    model.save_pretrained(tmp_path)
    assert "log-probabilities" not in (tmp_path / "README.md").read_text()
