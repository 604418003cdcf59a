"""The figures of `studies/explain` from records by hand, and the prompts it plants."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from studies.explain.__main__ import RESULTS, read
from studies.explain.figures import README, figures, of_model, tables
from studies.explain.prompts import Case, all_cases, load, planted_vectors


def record(**fields: Any) -> dict[str, Any]:
    plain = {"planted": None, "text": "a", "reason": "", "nearest_text": "a", "source": "search", "kl": 0.1}
    plain |= {"share": 0.5, "calibrated_share": 0.4, "alignment": 0.9, "kl_without": 0.2, "shown_acts_against": False}
    plain |= {
        "parts_at": 2,
        "parts_from_question": 3,
        "layers": 4,
        "seconds": 10.0,
        "model": "embedded",
        "device": "cpu",
    }
    return {**plain, **fields}


def test_figures_by_hand() -> None:
    cases = {
        "effect-sentiment-4-0": record(kind="effect", planted="a ", kl=0.009),
        "effect-sentiment-8-0": record(kind="effect", planted="b", kl=0.02),
        "trained-topic-4-0": record(kind="trained", share=0.7),
        "turned-sentiment-4-0": record(kind="turned", share=0.2, text=None, reason="against", parts_at=None),
        "turned-topic-4-0": record(kind="turned", share=0.4, shown_acts_against=True),
        "turned-topic-4-0-smollm2": record(kind="turned", share=0.0, model="smollm2", device="cuda", layers=30),
    }
    both, cases = cases, of_model(cases, "embedded")
    found = figures(cases)
    interval = found["effect"].pop("recovered_interval")
    assert found["effect"] == {"cases": 2, "recovered": 0.5, "exact_text": 0.5, "median_kl": pytest.approx(0.0145)}
    assert interval == pytest.approx((0.0126, 0.9874), abs=1e-4)  # Clopper and Pearson: 1 of 2
    assert (found["trained"]["median_share"], found["turned"]["median_share"]) == (0.7, pytest.approx(0.3))
    assert (found["turned"]["texts_shown"], found["turned"]["shown_against"]) == (0.5, 1)
    assert (found["soft"]["median_share"], found["soft"]["cases"]) == (0.4, 3)
    assert (found["turned"]["parts"], found["turned"]["parts_from_question"]) == ((1, 2), (2, 3))
    assert found["planted"] == {**found["effect"], "recovered_interval": interval}
    nine = figures({str(i): record(kind="turned", share=i / 10) for i in range(9)})["soft"]
    assert (nine["median_share"], nine["median_share_interval"]) == (0.4, (0.1, 0.7))  # ranks 2 and 8 of 9: 96%
    assert "rows" not in found
    shown = tables(both)
    assert "| turned-sentiment-4-0 |  | none: against |" in shown
    assert "1 of 2, layer 2.0 | 2 of 2, layer 3.0 |" in shown
    assert "5 prompts, a median of 10 s of one core each." in shown
    assert "### smollm2\n\n1 prompts, a median of 10 s of one core beside a GPU each." in shown
    assert figures({}) == {"cases": 0}


def test_cases_are_the_ones_that_are_promised() -> None:
    cases = all_cases()
    assert len({case.key for case in cases}) == len(cases) == 44
    assert sum(case.kind in ("rows", "noise", "effect") for case in cases) == 20
    assert {case.task for case in cases if case.kind == "turned"} == {"sentiment", "topic"}
    others = all_cases("smollm2")
    assert {case.kind for case in others} == {"noise", "effect", "trained", "turned"}
    assert not {case.key for case in others} & {case.key for case in cases}


def test_the_readme_shows_the_cases_that_are_there() -> None:
    assert tables(read(RESULTS)["cases"]) in README.read_text(encoding="utf-8")


def test_planted_vectors_are_a_texts_rows_or_near_them() -> None:
    setting = load("sentiment")
    text = "the best film ever"
    own = planted_vectors(setting, Case("rows", "sentiment", 4, 0), text)
    table = setting.model(own).get_input_embeddings().weight
    assert torch.equal(own, table[torch.tensor(setting.tokenizer.encode(text))])
    noisy = planted_vectors(setting, Case("noise", "sentiment", 4, 0), text)
    assert 0.1 < float((noisy - own).std() / own.std()) < 0.3
    assert {len(setting.rows), len(setting.training)} == {32, 24}
