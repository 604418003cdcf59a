"""`explain_prompt`: every source of candidates, what is delivered, and what cannot be explained."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from peft_interp import PromptExplanation, embedded, explain_prompt
from peft_interp.explain.sources import SOURCES, source_table

Build = Callable[..., Any]
TASK = embedded.TASKS["sentiment"]
PLANTED = "What do people think of this movie?"


@pytest.fixture(scope="module")
def explain(planted: Build, tokenizer: Any, rows: Any) -> Build:
    """`explain(model, **options)` on the fixture's rows."""
    return lambda model, **options: explain_prompt(model, tokenizer, rows, TASK, **{"progress": False, **options})


@pytest.mark.parametrize(("kind", "noise"), [("stock", 0.0), ("stock", 0.2), ("ours", 0.0)])
def test_nearest_tokens_recognise_what_was_planted(planted: Build, explain: Build, kind: str, noise: float) -> None:
    found = explain(planted(kind=kind, noise=noise))
    assert (found.text, found.candidates[0].source) == (PLANTED, "nearest")
    assert found.candidates[0].kl < 0.01
    assert found.candidates[0].share > 0.95
    assert found.evaluations <= 100  # nothing else was asked
    assert found.activations is not None
    assert found.activations.parts_at is None
    assert found.best.alignment > 0.95
    assert "this text does" in found.conclusion()
    assert found.method == {"stock": "PROMPT_TUNING", "ours": "INTERP_PROMPT"}[kind]


@pytest.mark.parametrize("source", [source.name for source in SOURCES])
def test_every_source_finds_candidates(planted: Build, explain: Build, source: str) -> None:
    found = explain(planted(noise=1.5), sources=[source], budget=200, activations=False)
    assert found.candidates
    assert {one.source for one in found.candidates} == {source}
    assert all(math.isfinite(one.kl) and one.text.strip() for one in found.candidates)
    assert found.evaluations <= 700
    assert f"`{source}`" in source_table()


def test_effect_alone_is_enough(planted: Build, explain: Build) -> None:
    """Without looking at the vectors: by the answers."""
    found = explain(planted(), sources=["inversion", "search"], budget=700, activations=False)
    assert found.best.share > 0.5
    assert found.kl_without - found.best.kl == pytest.approx(found.best.share * found.kl_without)
    again = explain(planted(), sources=["inversion", "search"], budget=700, activations=False)
    assert again.candidates == found.candidates  # the seed decides everything


def test_prefix_tuning_is_explained_by_its_effect(planted: Build, explain: Build) -> None:
    found = explain(planted(kind="prefix"), budget=100)
    assert found.method == "PREFIX_TUNING"
    assert found.activations is None
    by_answers = ["demonstrations", "hand-written", "inversion", "search"]
    assert found.reason == "idle" or {one.source for one in found.candidates} <= set(by_answers)
    with pytest.raises(ValueError, match=f"use some of {', '.join(by_answers)}"):
        explain(planted(kind="prefix"), sources=["nearest"])
    with pytest.raises(ValueError, match="PREFIX_TUNING has none"):
        explain(planted(kind="prefix"), activations=True)


def test_a_prompt_encoder_is_explained_too(planted: Build, explain: Build) -> None:
    found = explain(planted(kind="encoder"), sources=["nearest", "hand-written"], budget=50)
    assert found.method == "P_TUNING"
    assert found.text is not None or found.reason


def test_a_prompt_right_before_the_answer(tokenizer: Any) -> None:
    from peft import get_peft_model

    from peft_interp import InterpPromptConfig, Verbalizer

    config = InterpPromptConfig(
        task_type="CAUSAL_LM",
        tokenizer_name_or_path=embedded.MODEL_PATH,
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text=" In a word it was",
        prompt_position="end",
    )
    verbalizer = Verbalizer("{text} {prompt}", ("terrible", "great"))
    data = embedded.load_data("sentiment")["train"].select(range(16))
    rows = [verbalizer.encode(tokenizer, row["sentence"], row["label"]) for row in data]
    model = get_peft_model(embedded.load_model(), config)
    found = explain_prompt(model, tokenizer, rows, verbalizer, progress=False)
    assert found.text == " In a word it was"
    assert found.best.kl < 1e-6
    assert found.activations.parts_at is None


def test_without_label_words_nothing_is_calibrated(planted: Build, tokenizer: Any, rows: Any) -> None:
    found = explain_prompt(planted(), tokenizer, rows, progress=False)
    assert found.text == PLANTED
    assert (found.labels, found.calibrated_kl_without, found.best.alignment) == ((), None, None)
    assert "calibrated, that is" not in found.unexplained()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sources": ["guess"]}, r"`sources=\['guess'\]` must be a list of some of nearest, asking"),
        ({"sources": "nearest"}, "`sources='nearest'` must be a list"),
        ({"sources": []}, r"`sources=\[\]` leaves nothing to ask for this prompt"),
        ({"budget": 0}, "`budget=0` must be >= 1"),
        ({"longest": 0}, "`longest=0` must be >= 1"),
        ({"adapter_name": "other"}, "there is no adapter 'other'"),
    ],
)
def test_bad_options_are_said(planted: Build, explain: Build, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        explain(planted(), **options)


def test_bad_rows_are_said(planted: Build, tokenizer: Any, rows: Any) -> None:
    model = planted()
    with pytest.raises(ValueError, match="`rows` holds 7 rows; at least 8 are needed"):
        explain_prompt(model, tokenizer, rows[:7])
    bare = [{"input_ids": row["input_ids"], "labels": [-100] * len(row["labels"])} for row in rows]
    with pytest.raises(ValueError, match="no row of `rows` has a label"):
        explain_prompt(model, tokenizer, bare)
    with pytest.raises(ValueError, match="has no prompt adapter"):
        explain_prompt(model.get_base_model(), tokenizer, rows)


def test_it_is_stored_and_shown(planted: Build, explain: Build, tmp_path: Any) -> None:
    found = explain(planted(noise=0.2))
    found.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"explanation.{kind}" for kind in ("json", "md", "html", "txt")
    }
    again = PromptExplanation.load(tmp_path)
    assert again.candidates == found.candidates
    assert again.to_html() == found.to_html() == (tmp_path / "explanation.html").read_text()
    assert "<svg" in found.to_html()
    assert "srcdoc" in found._repr_html_()
    assert PLANTED in repr(found)
