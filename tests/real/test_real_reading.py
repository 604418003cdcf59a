"""Reports, cards, labels and the command line on SmolLM2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from peft_interp import classify, embedded, report_prompt
from peft_interp.cli import main

Build = Callable[..., Any]
TASK = embedded.TASKS["sentiment"]


def test_a_report(worded: Any, tokenizer: Any, reviews: list[dict[str, Any]]) -> None:
    rows = [TASK.encode(tokenizer, row["sentence"], row["label"]) for row in reviews]
    report = report_prompt(worded, tokenizer, rows, TASK)
    assert report.reading.text.strip() == "Is this film review positive or negative?"
    assert report.faithfulness is not None
    limit = 1e-4 if worded.get_base_model().dtype.itemsize == 4 else 0.02
    assert abs(report.faithfulness.kl) < limit
    assert report.faithfulness.top1_agreement == 1
    assert report.scrutability is not None
    assert report.scrutability.readable
    assert report.scrutability.measures["nll"].human is not None
    page = report.to_html()
    assert "SmolLM2" in page
    assert str(Path.home()) not in page


def test_labels_for_texts(worded: Any, tokenizer: Any) -> None:
    found = classify(worded, tokenizer, ["A wonderful film.", "Dull and far too long."], TASK, progress=False)
    assert len(found) == 2
    for one in found:
        assert one["label"] in TASK.label_words
        assert 0.5 <= one["score"] <= 1


def test_saved_read_and_loaded_by_name(
    worded: Any, tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card and the config name the model, not a path; the command line finds it by either."""
    worded.save_pretrained(tmp_path / "adapter")
    card = (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")
    assert 'embedded.load_model("smollm2")' in card
    assert str(Path.home()) not in card
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert (
        main(["evaluate", str(tmp_path / "adapter"), "--base-model", "smollm2", "--task", "sentiment", "--rows", "4"])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["text"].strip() == "Is this film review positive or negative?"
    assert found["faithfulness"]["kl"] < 0.02
