"""The benchmark runs, reports every part, and what it compares is the same computation. No time is asserted."""

from __future__ import annotations

from typing import Any

import pytest

BENCHMARK = "training_step"


def test_every_part_is_there(results: dict[str, Any]) -> None:
    about = {"command", "seconds", "machine", "setting", "goals"}
    assert set(results) == about | {
        "agreement",
        "memory",
        "projection",
        "training_step",
        "growth",
        "operations",
        "ways",
        "checks",
    }
    assert {"date", "commit", "versions", "device", "threads", "load_average"} <= set(results["machine"])
    assert {case["varied"] for case in results["growth"]} == {"prompt", "batch"}
    assert len(results["goals"]) == 10


@pytest.mark.parametrize("part", ["agreement", "memory", "training_step"])
def test_both_kinds_of_labels_are_measured(results: dict[str, Any], part: str) -> None:
    assert [case["labels"] for case in results[part]] == ["one", "all"]


@pytest.mark.parametrize("reference", ["plain_pass", "stock"])
def test_fast_step_has_the_same_loss_and_gradient(results: dict[str, Any], reference: str) -> None:
    for case in results["agreement"]:
        assert case[reference]["loss_error"] <= 1e-5
        assert case[reference]["gradient_error"] <= 1e-5


def test_both_projections_find_the_same_tokens(results: dict[str, Any]) -> None:
    assert results["projection"]["same_ids"]


def test_time_and_memory_are_positive(results: dict[str, Any]) -> None:
    compared = [case[name] for case in results["training_step"] for name in ("step", "step_with_optimizer")]
    compared += [case["step"] for case in results["growth"]] + [results["projection"]]
    assert all(case["ours_seconds"] > 0 and case["other_seconds"] > 0 for case in compared)
    assert all(case["ours_bytes"] > 0 and case["other_bytes"] > 0 for case in results["memory"])


def test_readme_beside_the_results_gets_the_tables(quick: Any) -> None:
    quick.check_readme("Goals", "Training step", "Projection", "Growth of the step with the batch")


def test_quick_run_leaves_the_published_results_alone(quick: Any) -> None:
    quick.check_published()
