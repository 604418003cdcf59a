"""What an installed package has: its data files, its command, its version, and the names that it promises."""

from __future__ import annotations

import re
import runpy
import subprocess
import tomllib
from email.message import Message
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import peft_interp
from tools.release import CODE, RELATIVE_LINK, faults, plain_block

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


@pytest.mark.parametrize(
    "target", ["demo", "test", "test-fast", "coverage", "lint", "docs", "release-check", "benchmark", "clean"]
)
def test_the_makefile_knows_what_the_docs_name(target: str) -> None:
    """A dry run, as far as make has something to do once the environment is there."""
    ran = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout


def test_the_long_description_has_no_link_that_only_works_in_the_repository() -> None:
    make = runpy.run_path(str(ROOT / "setup.py"))["without_relative_links"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = make(readme)
    assert not RELATIVE_LINK.findall(CODE.sub("", shown))
    assert re.findall(r"\]\(https://[^)]+\)", shown) == re.findall(r"\]\(https://[^)]+\)", readme)
    assert re.findall(r"```.*?```", shown, re.DOTALL) == re.findall(r"```.*?```", readme, re.DOTALL)
    text = "[a](b.md#c), ![picture\nof it](d.svg)[e](https://f), `[g](h)`\n```\n[i](j)\n```\n[k\nl](m)"
    assert make(text) == "a, [e](https://f), `[g](h)`\n```\n[i](j)\n```\nk\nl"


def test_a_wheel_with_a_fault_is_named() -> None:
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    names = [path.relative_to(ROOT).as_posix() for path in files]
    metadata = Message()
    metadata["Version"], metadata["License-Expression"] = peft_interp.__version__, PROJECT["project"]["license"]
    metadata.set_payload("Good: [a](https://b), `[c](d)`.")
    assert faults(metadata, names) == []
    metadata.set_payload("Bad: [a](b.md).")
    metadata.replace_header("Version", "9")
    metadata.replace_header("License-Expression", "Apache-2.0")
    assert faults(metadata, [*names[1:], "tests/test_a.py"]) == [
        "the long description has a relative link: (b.md)",
        f"the wheel's version is 9, the package's {peft_interp.__version__}",
        "no CC0-1.0 among the licences",
        "the licences say nothing of the embedded model's weights",
        f"{names[0]} is not in the wheel",
        "tests/test_a.py is not the package's",
    ]
    with pytest.raises(ValueError, match="the README has no"):
        plain_block("# Nothing")
    assert plain_block('```python\nload_model("smollm2")\n```\n\n```python\n1\n```\n') == "1\n"


def test_the_release_has_one_version_and_its_changes() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == peft_interp.__version__
    assert f"\n## {peft_interp.__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_support_names_the_pythons_of_the_workflow() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    others = ", ".join(jobs["pythons"]["strategy"]["matrix"]["python-version"])
    assert jobs["release"]["steps"][-1]["run"] == "make release-check RELEASE=--full"
    page = (ROOT / "docs" / "support.md").read_text(encoding="utf-8")
    assert "| 3.11 |" in page
    assert f"| {others} | nothing here yet" in page


def test_the_workflow_runs_the_steps_of_the_gate() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    gate = re.findall(r"^make (\S+)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    assert jobs["gate"]["strategy"]["matrix"]["step"] == gate
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([\w -]+):", makefile, re.MULTILINE)
    known = {name for line in targets for name in line.split()}
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    named = {word for command in commands for word in re.findall(r"make ([\w-]+)", command)}
    named |= {step for job in jobs.values() for step in job.get("strategy", {}).get("matrix", {}).get("step", [])}
    assert named
    assert named <= known
