"""The scoring benchmark runs, reports every part, and compares the same numbers. No time is asserted."""

from __future__ import annotations

from typing import Any

BENCHMARK = "scoring"


def test_every_part_is_there(results: dict[str, Any]) -> None:
    about = {"command", "seconds", "machine", "setting", "goals"}
    assert set(results) == about | {"agreement", "steps", "candidates", "growth", "memory"}
    assert [case["position"] for case in results["steps"]] == ["end", "start"]
    assert {case["varied"] for case in results["growth"]} == {"prompts", "examples", "text"}
    assert len(results["goals"]) == 4


def test_both_sides_compute_the_same_probabilities(results: dict[str, Any]) -> None:
    assert [case["position"] for case in results["agreement"]] == ["end", "start"]
    assert all(case["error"] <= 1e-5 for case in [*results["agreement"], *results["candidates"]])


def test_time_and_memory_are_positive(results: dict[str, Any]) -> None:
    compared = [case[name] for case in results["steps"] for name in ("reward", "step")]
    compared += [case["reward"] for case in results["growth"]]
    assert all(case["ours_seconds"] > 0 and case["other_seconds"] > 0 for case in compared)
    assert all(case["bytes"] > 0 for case in results["memory"])


def test_readme_beside_the_results_gets_the_tables(quick: Any) -> None:
    quick.check_readme(
        "Goals",
        "Search step",
        "Candidates of the fluent search",
        "Growth of the reward's time, prompt at the end",
        "Peak memory of scoring",
    )


def test_quick_run_leaves_the_published_results_alone(quick: Any) -> None:
    quick.check_published()
