"""What an installed package has: its data files, its command, its version, and the names that it promises."""

from __future__ import annotations

import subprocess
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import peft_interp

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "peft_interp"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_data_file_of_the_package_is_installed() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["peft_interp"]
    for pattern in patterns:
        assert list(PACKAGE.glob(pattern)), f"{pattern} matches nothing"
    installed = {path for pattern in patterns for path in PACKAGE.glob(pattern) if path.is_file()}
    data = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert data - installed == set()


def test_every_folder_with_code_is_a_package() -> None:
    """Else it is not installed; the scripts for `evaluate` are data."""
    folders = {path.parent for path in PACKAGE.rglob("*.py") if "evaluate_scripts" not in path.parts}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_the_command_and_the_version_are_there() -> None:
    module, function = PROJECT["project"]["scripts"]["peft-interp"].split(":")
    assert callable(getattr(import_module(module), function))
    module, _, name = PROJECT["tool"]["setuptools"]["dynamic"]["version"]["attr"].rpartition(".")
    assert getattr(import_module(module), name) == peft_interp.__version__


def test_what_is_tested_is_what_is_pinned() -> None:
    """Each requirement has a tested version, so that a fresh environment is the one that the tests were run in."""
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines_of(ROOT / "constraints.txt")}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *(name for extra in extras.values() for name in extra)]
    names = {wish.split(">=")[0].lower() for wish in wanted if not wish.startswith("peft-interp")}
    assert names - pinned == set()


def lines_of(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("target", ["demo", "test", "test-fast", "coverage", "lint", "benchmark", "clean"])
def test_the_makefile_knows_what_the_docs_name(target: str) -> None:
    """A dry run, as far as make has something to do once the environment is there."""
    ran = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout
