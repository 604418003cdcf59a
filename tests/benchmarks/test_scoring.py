"""The scoring benchmark runs, reports every part, and compares the same numbers. No time is asserted."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "scoring"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a quick run has left its results."""
    folder = tmp_path_factory.mktemp("rlprompt_benchmark")
    shutil.copy(BENCHMARK / "README.md", folder)
    output = str(folder / "results.json")
    command = [sys.executable, str(BENCHMARK / "measure_scoring.py"), "--quick", "--output", output]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


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


def test_readme_beside_the_results_gets_the_tables(folder: Path, results: dict[str, Any]) -> None:
    before, text = (BENCHMARK / "README.md").read_text(), (folder / "README.md").read_text()
    assert text.startswith(before.split("<!-- results: start -->")[0])
    for title in (
        "Goals",
        "Search step",
        "Candidates of the fluent search",
        "Growth of the reward's time, prompt at the end",
        "Peak memory of scoring",
    ):
        assert f"### {title}" in text
    assert results["machine"]["date"][:10] in text


def test_quick_run_leaves_the_published_results_alone(folder: Path) -> None:
    published = BENCHMARK / "results.json"
    assert not published.exists() or json.loads(published.read_text())["setting"]["width"] == 768
