"""Studies and benchmarks are packages: every module imports, and every command that a text names exists."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import benchmarks
import studies

ROOT = Path(__file__).parents[2]
TEXTS = [
    path
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile", *ROOT.glob("docs/*.md"))
    if path.exists()
] + [path for folder in ("studies", "benchmarks") for path in (ROOT / folder).rglob("*.md")]
MODULES = [
    module.name
    for package in (studies, benchmarks)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports(name: str) -> None:
    assert importlib.import_module(name).__doc__


def test_modules_import_each_other_by_their_whole_names() -> None:
    files = [path for folder in ("studies", "benchmarks", "tools", "tests") for path in (ROOT / folder).rglob("*.py")]
    paths = re.compile(r"sys\.path\.(insert|append|extend)|syspath_prepend|spec_from_file_location")
    found = {path.relative_to(ROOT).as_posix() for path in files if paths.search(path.read_text(encoding="utf-8"))}
    allowed = {
        "tests/contract/test_evaluate_loading.py",  # what `evaluate` does to it is what is tested
        "tests/embedded/test_smollm2_folder.py",  # stands wheels of its own on the path, good ones and damaged ones
        "tests/real/test_real_readability.py",  # a damaged wheel
        "tests/studies/test_packages.py",
        "tests/processes.py",  # stands in for the interpreter, which puts the script's folder there
        "tests/peft_suite/stand_in.py",  # the suite is PEFT's, unpacked elsewhere
    }
    assert found <= allowed


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_that_a_text_names_exist(path: Path) -> None:
    text = re.sub(r"<!-- results: start -->.*?<!-- results: end -->", "", path.read_text(encoding="utf-8"), flags=re.S)
    for module in re.findall(r"python -m ((?:studies|benchmarks|tools)[\w.]*)", text):
        place = ROOT / module.replace(".", "/")
        assert (place / "__main__.py").exists() or place.with_suffix(".py").exists(), module
    for script in re.findall(r"python ((?:studies|benchmarks|examples)/[\w/]+\.py)", text):
        assert (ROOT / script).exists(), script
