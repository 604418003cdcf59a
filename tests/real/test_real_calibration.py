"""Label words' numbers, comparisons, and PEFT's own prompt tuning on SmolLM2, in fp32 and bf16."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from peft import PromptTuningConfig, get_peft_model

from peft_interp import calibrate, classify, compare_prompts, embedded, measure_label_prior, report_prompt

TASK = embedded.TASKS["sentiment"]
BATCH = replace(TASK, calibration="batch")
FAST: dict[str, Any] = {"progress": False, "token_effects": False, "scrutability": {"references": False}}


@pytest.fixture(scope="module")
def encoded(tokenizer: Any, reviews: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Eight rows to measure, and the eight next longer ones to calibrate on."""
    rows = sorted(embedded.load_data("sentiment")["train"], key=lambda row: len(row["sentence"]))
    others = [row for label in (0, 1) for row in [row for row in rows if row["label"] == label][4:8]]
    return {
        name: [TASK.encode(tokenizer, row["sentence"], row["label"]) for row in given]
        for name, given in (("test", reviews), ("train", others))
    }


def test_numbers_are_kept_and_the_prior_is_told(worded: Any, tokenizer: Any, encoded: dict[str, list[Any]]) -> None:
    found = measure_label_prior(worded, tokenizer, encoded["test"], BATCH, encoded["train"], progress=False)
    bias = calibrate(worded, tokenizer, encoded["train"], BATCH, progress=False)
    assert bias.values == pytest.approx(found.as_prompt.bias, abs=1e-6)
    assert found.rows == found.calibration_rows == 8
    assert found.as_text is None
    assert found.beyond.mean == pytest.approx(found.as_prompt.calibrated.mean - found.without.calibrated.mean)
    raw = classify(worded, tokenizer, "Dull.", TASK, progress=False)[0]
    worded.keep_label_bias(bias)
    (told,) = classify(worded, tokenizer, "Dull.", TASK, progress=False)
    assert told["score"] != raw["score"]
    report = report_prompt(worded, tokenizer, encoded["test"], TASK, training_rows=encoded["train"], **FAST)
    assert report.faithfulness.as_prompt.accuracy == found.as_prompt.calibrated.mean
    assert report.faithfulness.without.accuracy == found.without.calibrated.mean
    assert report.label_prior.without == found.without


@pytest.mark.parametrize("base", ["fp32"], indirect=True, scope="session")  # half a minute: its reference levels
def test_prompts_are_compared_each_with_its_numbers(
    base: Any, worded: Any, tokenizer: Any, encoded: dict[str, list[Any]]
) -> None:
    asked = {"training_rows": encoded["train"], "progress": False}
    text = " Is this film review positive or negative?"
    found = compare_prompts(base, tokenizer, {"ours": worded, "text": text}, encoded["test"], BATCH, **asked)
    by_name = {prompt.name: prompt for prompt in found.prompts}
    assert set(by_name) == {"ours", "text", "no prompt"}
    assert by_name["ours"].label_bias == pytest.approx(by_name["text"].label_bias, abs=0.05)
    assert by_name["ours"].label_bias != by_name["no prompt"].label_bias
    assert by_name["ours"].perplexity == pytest.approx(by_name["text"].perplexity, rel=1e-2)


def test_stock_prompt_tuning_is_read(base: Any, tokenizer: Any, encoded: dict[str, list[Any]]) -> None:
    start = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": " Is this film review positive or negative?"}
    names = {"tokenizer_name_or_path": embedded.resolve("smollm2"), "num_virtual_tokens": 8}
    stock = get_peft_model(base, PromptTuningConfig(task_type="CAUSAL_LM", **start, **names))
    report = report_prompt(stock, tokenizer, encoded["test"], BATCH, training_rows=encoded["train"], **FAST)
    assert report.reading.method == "PROMPT_TUNING"
    assert report.reading.text.strip() == "Is this film review positive or negative?"
    assert report.faithfulness.kl < (1e-4 if base.dtype.itemsize == 4 else 0.02)
    assert report.label_bias is not None
    (told,) = classify(stock, tokenizer, "Dull.", BATCH, progress=False, label_bias=report.label_bias)
    assert told["label"] in TASK.label_words
