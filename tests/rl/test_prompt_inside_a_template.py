"""Both searches find a prompt that stands inside its template, rewarded by label words of several tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import get_peft_model

from peft_interp import (
    InterpPromptConfig,
    PromptSearchConfig,
    PromptSearchTrainer,
    RLPromptConfig,
    RLPromptTrainer,
    Verbalizer,
    embedded,
    report_prompt,
)

Build = Callable[..., Any]
TASK = Verbalizer("Review: {prompt}\n{sentence} It was", ("really terrible", "great"))
QUIET = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "max_steps": 1}


@pytest.fixture(params=["rl", "search"])
def trained(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, prompt_position=TASK.prompt_position)
    parts = {
        "train_dataset": embedded.load_data("sentiment")["train"].select(range(8)),
        "processing_class": embedded.load_tokenizer(),
        "verbalizer": TASK,
    }
    model = get_peft_model(embedded.load_model(), config)
    if request.param == "rl":
        trainer: Any = RLPromptTrainer(model, RLPromptConfig(str(tmp_path), prompts_per_step=3, **QUIET), **parts)
    else:
        trainer = PromptSearchTrainer(model, PromptSearchConfig(str(tmp_path), prompts_per_step=3, **QUIET), **parts)
    trainer.train()
    return trainer


def test_what_is_found_is_the_text_and_is_measured_so(trained: Any) -> None:
    model, tokenizer = trained.model, embedded.load_tokenizer()
    assert len(model.prompt_token_ids()) <= 10
    found = [record for record in trained.search.archive.records if record.scores.get("accuracy") is not None]
    assert found
    assert all(0 <= record.scores["accuracy"] <= 1 for record in found)
    rows = embedded.load_data("sentiment")["test"].select(range(6))
    report = report_prompt(model, tokenizer, TASK.encode_dataset(tokenizer, rows), TASK, progress=False)
    assert report.reading.position == "template"
    assert report.faithfulness is not None
    assert report.faithfulness.kl == pytest.approx(0, abs=1e-6)
    assert report.faithfulness.as_prompt.accuracy == report.faithfulness.as_text.accuracy
    assert "As text, inside the input" in report.to_html()
