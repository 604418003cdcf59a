"""The composite score: the published coefficients are what the study wrote, and every fault lowers the score."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from peft_interp.metrics.scrutability import FAULTS, calibration, faults_of

STUDY = Path(__file__).parents[3] / "studies" / "calibration"


def test_the_packaged_coefficients_are_those_of_the_published_study() -> None:
    published = json.loads((STUDY / "results.json").read_text())["calibration"]
    assert vars(calibration()) == published
    assert {"script", "date", "data", "models", "threshold_rule"} <= set(published["provenance"])
    assert set(published["coefficients"]) == set(FAULTS)
    assert 0 < published["threshold"] < 1
    assert f"readable from {published['threshold']} on" in (STUDY / "README.md").read_text()


def test_the_published_table_states_what_fails_as_well() -> None:
    rates = json.loads((STUDY / "results.json").read_text())["readable"]
    assert set(rates) == {"embedded", "stories260K", "llama2xs_281K"}
    for by_kind in rates.values():
        assert by_kind["random words"]["both"] < 0.05 < by_kind["unseen sentences"]["both"]


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_lowers_the_score(fault: str) -> None:
    good = dict.fromkeys(FAULTS, 0.0)
    scores = [calibration().score({**good, fault: size}) for size in (0.0, 0.3, 0.6, 1.0)]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 4
    assert calibration().score(good) > calibration().threshold


def test_an_unknown_likelihood_gives_no_score() -> None:
    faults = faults_of({"nll_position": math.nan, "dictionary_share": 1.0, "repetition": 0.0})
    assert math.isnan(calibration().score(faults))


def test_words_of_another_language_are_no_fault() -> None:
    measures = {"nll_position": 5.0, "dictionary_share": 0.2, "repetition": 0.0}
    assert faults_of(measures) == {"nll_position": 2.0, "unknown_words": 0.8, "repetition": 0.0}
    assert faults_of(measures, english=False)["unknown_words"] == 0.0
    assert faults_of({**measures, "dictionary_share": math.nan})["unknown_words"] == 0.0
