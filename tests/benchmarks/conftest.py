"""A benchmark run as a user runs it, at tiny sizes, in a folder beside which its README stands."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import processes

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class QuickRun:
    """What a quick run has left, and what is published."""

    folder: Path
    published: Path

    @property
    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "results.json").read_text())
        return found

    def check_readme(self, *titles: str) -> None:
        """The README beside the results has the tables of this run, and its own words before them."""
        before, text = ((folder / "README.md").read_text() for folder in (self.published, self.folder))
        assert text.startswith(before.split("<!-- results: start -->")[0])
        assert [title for title in titles if f"### {title}" not in text] == []
        assert self.results["machine"]["date"][:10] in text

    def check_published(self) -> None:
        """The published results are those of a whole run still."""
        published = sorted(self.published.glob("results*.json"))  # by device where there are several
        wide = [found for path in published if "setting" in (found := json.loads(path.read_text()))]
        assert wide
        assert all(found["setting"]["width"] == 768 for found in wide)


@pytest.fixture(scope="module")
def quick(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> QuickRun:
    """`python -m benchmarks.<BENCHMARK of the test file> --quick` from a checkout in which nothing is installed."""
    name = str(request.module.BENCHMARK)
    folder, published = tmp_path_factory.mktemp(name), ROOT / "benchmarks" / name
    shutil.copy(published / "README.md", folder)
    command = ["-m", f"benchmarks.{name}", "--quick", "--output", str(folder / "results.json")]
    done = processes.run(*command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr[-3000:]
    return QuickRun(folder, published)


@pytest.fixture(scope="module")
def results(quick: QuickRun) -> dict[str, Any]:
    return quick.results
