"""The README's Python runs as it stands, and its commands and files exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import processes

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
ON_SMOLLM2 = [block for block in BLOCKS if "smollm2" in block]


@pytest.mark.real
def test_the_block_on_smollm2_prints_a_front(tmp_path: Path) -> None:
    """Prompts that keep the rule, about as right as the README's lines: other processors round otherwise."""
    (block,) = ON_SMOLLM2
    finished = processes.run("-c", block, cwd=tmp_path, timeout=550)
    assert finished.returncode == 0, finished.stderr[-3000:]
    shown = re.findall(r"^([\d.]+)%  ([\d.]+)  (.+)$", README, re.MULTILINE)
    found = re.findall(r"^([\d.]+)%  ([\d.]+)  (.+)$", finished.stdout, re.MULTILINE)
    assert found
    assert len(shown) > 1
    for accuracy, _, text in found + shown:
        assert "positive or negative" in text
        assert float(accuracy) == pytest.approx(float(shown[0][0]), abs=6)


def test_python_blocks_run(tmp_path: Path) -> None:
    plain = [block for block in BLOCKS if block not in ON_SMOLLM2]
    assert plain
    for block in plain:
        finished = processes.run("-c", block, cwd=tmp_path, timeout=300)
        assert finished.returncode == 0, finished.stderr[-3000:]
        assert finished.stdout.strip()
        assert (tmp_path / "outputs" / "readme" / "adapter_config.json").exists()


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^    make (\w+)", README, re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    assert all(f"\n{target}:" in makefile for target in targets)


def test_folder_listing_is_the_package() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listing = page.split("```\npeft_interp/\n")[1].split("```")[0].split("examples/")[0]
    listed = set(
        re.findall(r"\w+\.py\b|\b\w+(?=/)", "\n".join(re.split(r"  +", line)[1] for line in listing.splitlines()))
    )
    inside = [
        path for path in (ROOT / "peft_interp").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    ]
    assert listed == {path.name for path in inside} - {"__init__.py"}


def test_relative_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_no_placeholder_is_left() -> None:
    assert not re.findall(r"\b(QUICKSTART_\w+|BENCH_\w+|EMBEDDED_SUMMARY|TODO)\b", README)
