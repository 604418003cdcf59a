"""The measures as `evaluate` modules: loaded offline from the package, combined, and inside a Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import evaluate
import pytest
import torch
from evaluate.loading import get_imports
from peft import get_peft_model
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from peft_interp import InterpPromptConfig, embedded, metrics
from peft_interp.metrics.scrutability import measure_scrutability

TEXTS = ["Is this film review positive or negative?", " magazine magazine magazine approved of"]


@pytest.fixture(autouse=True)
def online(evaluate_caches: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as `evaluate` knows; no connection is to be had."""
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", False)


@pytest.fixture
def task() -> dict[str, Any]:
    """A model with a prompt, and what the measures want to know of its task."""
    verbalizer, tokenizer = embedded.TASKS["sentiment"], embedded.load_tokenizer()
    rows = verbalizer.encode_dataset(tokenizer, embedded.load_data("sentiment")["validation"].select(range(8)))
    config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, perplexity_weight=0.1)
    return {
        "model": get_peft_model(embedded.load_model(), config),
        "tokenizer": tokenizer,
        "rows": rows,
        "label_token_ids": verbalizer.label_token_ids(tokenizer),
    }


def test_scrutability_loads_by_name_and_by_path_without_a_connection(model: Any, tokenizer: Any) -> None:
    for module in (metrics.load("scrutability"), evaluate.load(metrics.path("scrutability"))):
        found = module.compute(data=TEXTS, model=model, tokenizer=tokenizer)
        assert (module.name, module.module_type) == ("scrutability", "measurement")
        single = [measure_scrutability(model, tokenizer, text) for text in TEXTS]
        assert found["readable"] == 0.5
        assert found["score"] == pytest.approx(sum(result.score for result in single) / 2)
        assert found["nll"] == pytest.approx(sum(result.measures["nll"].value for result in single) / 2, rel=1e-4)
        assert [record["text"] for record in found["scrutability"]] == TEXTS


def test_options_are_passed_on(model: Any, tokenizer: Any) -> None:
    module = metrics.load("scrutability", experiment_id="mine")
    found = module.compute(data=TEXTS, model=model, tokenizer=tokenizer, label_words=(" positive",))
    assert module.experiment_id == "mine"
    assert found["label_leak"] == 0.5


def test_faithfulness_compares_texts_with_the_prompt(task: dict[str, Any]) -> None:
    own = task["model"].prompt_text(task["tokenizer"])
    found = metrics.load("faithfulness").compute(data=[own, TEXTS[0]], progress=False, **task)
    same, other = found["faithfulness"]
    assert same["kl"] == pytest.approx(0, abs=1e-4)
    assert other["kl"] > 0.001
    assert found["kl"] == pytest.approx((same["kl"] + other["kl"]) / 2)


def test_both_combine(task: dict[str, Any]) -> None:
    both = evaluate.combine([metrics.load("scrutability"), metrics.load("faithfulness")])
    found = both.compute(data=TEXTS[:1], progress=False, **task)
    assert {"score", "nll", "scrutability", "kl", "logit_mse", "faithfulness"} <= set(found)


def test_keywords_of_neither_and_missing_rows_are_refused(task: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no keyword of these measures"):
        metrics.load("scrutability").compute(data=TEXTS, labelwords=("a",), **task)
    with pytest.raises(ValueError, match="tokenised rows"):
        metrics.load("faithfulness").compute(data=TEXTS, **{**task, "rows": None})
    with pytest.raises(ValueError, match="use one of faithfulness, scrutability"):
        metrics.load("readability")


def test_scripts_are_one_plain_import() -> None:
    for name in metrics.NAMES:
        script = Path(metrics.path(name)) / f"{name}.py"
        assert [entry[:2] for entry in get_imports(str(script))] == [("library", "peft_interp")]


def test_scrutability_runs_inside_compute_metrics(task: dict[str, Any], tmp_path: Path) -> None:
    module, model, tokenizer = metrics.load("scrutability"), task["model"], task["tokenizer"]

    def compute_metrics(prediction: Any) -> dict[str, float]:
        found = module.compute(data=[model.prompt_text(tokenizer)], model=model, tokenizer=tokenizer)
        return {name: found[name] for name in ("score", "nll", "readable")}

    args = TrainingArguments(
        str(tmp_path), max_steps=2, eval_strategy="steps", eval_steps=1, use_cpu=True, learning_rate=0.1,
        report_to=[], disable_tqdm=True, save_strategy="no", dataloader_pin_memory=False,
    )  # fmt: skip
    collator = DataCollatorForSeq2Seq(tokenizer)
    trainer = Trainer(model, args, collator, task["rows"], task["rows"], compute_metrics=compute_metrics)
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "eval_score" in entry]
    assert len(logged) == 2
    assert all(0 < entry["eval_nll"] < 20 for entry in logged)


def test_the_performance_differentials_are_among_the_means(task: dict[str, Any]) -> None:
    found = metrics.load("faithfulness").compute(data=TEXTS, progress=False, **task)
    for name in ("loss_difference", "accuracy_difference"):
        assert found[name] == pytest.approx(sum(record[name] for record in found["faithfulness"]) / 2)
    assert found["loss_difference"] > 0


@pytest.mark.parametrize("name", metrics.NAMES)
def test_no_text_is_refused(task: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=r"`data=\[\]` holds no prompt"):
        metrics.load(name).compute(data=[], **task)


@pytest.mark.parametrize("name", metrics.NAMES)
def test_a_bare_text_is_not_taken_for_its_characters(task: dict[str, Any], name: str) -> None:
    module = metrics.load(name)
    for use in (lambda: module.compute(data="Is it?", **task), lambda: module.add_batch(data="Is it?")):
        with pytest.raises(ValueError, match=r"`data='Is it\?'` is one text.*; write `data=\['Is it\?'\]`"):
            use()
    module.add(data="Is it?")
    known = {"task_description": "Ask.", "encoder": lambda texts: torch.ones(len(texts), 2)}
    assert [
        found["text"]
        for found in module.compute(**task, **(known if name == "task_naming" else {})).get("scrutability", [])
    ] in ([], ["Is it?"])
