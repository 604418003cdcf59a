"""The study measures every prompt with and without its label prior, and old records stay as they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import get_peft_model
from tradeoff_records import TRADEOFF, measured, record

from peft_interp import InterpPromptConfig, Verbalizer, embedded, measure_label_prior
from studies.tradeoff.bench import Prompt, make_bench
from studies.tradeoff.config import Study, TaskSettings
from studies.tradeoff.measure import Measurement
from studies.tradeoff.outcomes import outcomes_of
from studies.tradeoff.report.calibration import calibrated, ways
from studies.tradeoff.report.tables import all_tables
from studies.tradeoff.store import read_lines


def measurement(**settings: Any) -> Measurement:
    common: dict[str, Any] = {
        "name": "sentiment",
        "dataset_name": "embedded:sentiment",
        "label_words": ("terrible", "great"),
    }
    task = TaskSettings(**{**common, "template": "{prompt} {text} It was", **settings})
    study = Study(tasks=(task,), settings=(), test_rows=30, shots=6, faithfulness_rows=4)
    return Measurement(study, make_bench(study, task, 13, 0))


def test_prompts_are_measured_as_the_package_measures_them() -> None:
    measure = measurement()
    bench, ids = measure.bench, tuple(measure.bench.tokenizer.encode("Movie review:"))
    config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, tokenizer_name_or_path=embedded.MODEL_PATH)
    adapter = get_peft_model(bench.model, config)
    adapter.use_prompt(ids, resize=True)
    tokens, vectors, nothing = (
        measure.of(prompt)
        for prompt in (Prompt("front", ids), Prompt("front", adapter=adapter), Prompt("front", ids=()))
    )
    for calibration in ("batch", "fitted", "content_free"):
        ask = Verbalizer("{prompt} {text} It was", ("terrible", "great"), calibration=calibration)
        rows = bench.data.rows
        training = None if calibration == "content_free" else rows["train"]
        found = measure_label_prior(adapter, bench.tokenizer, rows["test"], ask, training, progress=False)
        name = f"{calibration}_accuracy"
        assert tokens[name] == pytest.approx(found.as_prompt.calibrated.mean)
        assert vectors[name] == tokens[name]
        assert nothing[name] == pytest.approx(found.without.calibrated.mean)
    assert tokens["accuracy"] == pytest.approx(found.as_prompt.accuracy.mean)


def test_written_answers_have_no_label_prior() -> None:
    found = measurement(template="{prompt} {text}", answers=("It was terrible", "It was great")).of(
        Prompt("front", ids=())
    )
    assert not {"batch_accuracy", "fitted_accuracy", "content_free_accuracy"} & set(found)


def test_the_table_has_records_that_were_calibrated_and_no_others() -> None:
    new = {"batch_accuracy": 0.7, "fitted_accuracy": 0.72}
    records = [record(split, "pez", measured(accuracy=0.6, **new)) for split in (0, 1)]
    records += [record(split, "empty", measured(accuracy=0.5, nll=None)) for split in (0, 1)]
    assert calibrated(outcomes_of(records)).rows == [["pez", "", "60.0 / 70.0 / 72.0"]]
    assert calibrated(outcomes_of(records[2:])).rows == []


def test_ways_to_calibrate_are_compared_on_the_runs_that_have_all_of_them() -> None:
    two = {"batch_accuracy": 0.7, "fitted_accuracy": 0.72}
    runs = [record(0, "pez", measured(accuracy=0.6, **two, content_free_accuracy=0.66))]
    runs += [record(1, "pez", measured(accuracy=0.1, **two))]
    assert ways(outcomes_of(runs)).rows == [["films: pez", "1", "60.0", "70.0", "72.0", "66.0"]]
    assert ways(outcomes_of(runs[1:])).rows == []


def test_of_what_people_wrote_the_best_on_dev_has_a_row_of_its_own() -> None:
    def written(split: int, number: int, dev: float, test: float) -> dict[str, Any]:
        values = {"accuracy": 0.5, "batch_accuracy": test, "fitted_accuracy": test, "dev_batch_accuracy": dev}
        return record(split, "written", measured(**values), setting=f"number {number}")

    records = [written(0, 0, 0.8, 0.6), written(0, 1, 0.7, 0.9), written(1, 0, 0.5, 0.1), written(1, 1, 0.9, 0.8)]
    assert calibrated(outcomes_of(records)).rows[-1] == [
        "written", "the best on dev, calibrated", "50.0 / 70.0 / 70.0"
    ]  # fmt: skip
    assert len(calibrated(outcomes_of(records)).rows) == 3
    assert len(calibrated(outcomes_of(records[::2])).rows) == 1  # one prompt a split: nothing to choose


def test_published_records_have_no_such_table() -> None:
    records = read_lines(TRADEOFF / "results.jsonl.gz")
    assert "With calibrated label words" not in [table.title for table in all_tables(outcomes_of(records), records)]


def test_a_prior_that_is_planted_is_gone_after_calibration() -> None:
    plain, planted = measurement(), measurement()
    model = embedded.load_model()
    bias = torch.zeros(model.lm_head.out_features)
    bias[planted.bench.data.label_ids[1]] = 6.0
    model.lm_head.bias = torch.nn.Parameter(bias, requires_grad=False)
    for answers in (planted._test, planted._train):
        answers._scorer = type(answers._scorer)(model, answers.rows, planted.bench.data.label_ids)
    ids = tuple(plain.bench.tokenizer.encode("Movie review:"))
    before, after = plain.of(Prompt("front", ids)), planted.of(Prompt("front", ids))
    assert before["accuracy"] > after["accuracy"]
    assert after["batch_accuracy"] == before["batch_accuracy"]
