"""The notebooks run from top to bottom in a kernel of their own, well within three minutes of one core."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
SECONDS = 180  # of one core, which is what the kernel has used itself, whatever else the machine does
CLOCK = "import time\nprint('seconds', time.process_time())"


EXECUTE = """
import sys
import nbclient, nbformat

notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[1])
"""


def run(name: str, folder: Path) -> Any:
    """The notebook with its outputs; one more cell at the end says what it took.

    The client runs in a process of its own, since it leaves event loops open, and warnings are errors here.
    """
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(CLOCK))
    place = folder / f"{name}.ipynb"
    nbformat.write(notebook, place)
    command = [sys.executable, "-c", EXECUTE, str(place)]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1200, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return nbformat.read(place, as_version=4)


def shown(notebook: Any) -> str:
    """All that it printed and displayed, as text and as HTML."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "\n".join(
        "".join(text) for output in outputs for text in (output.get("text", ""), *output.get("data", {}).values())
    )


@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    printed = shown(run(name, tmp_path))
    found = re.search(r"^seconds ([\d.]+)$", printed, re.MULTILINE)
    assert found is not None
    assert float(found[1]) < SECONDS
    for words in {
        "1_train_and_read": ("<th>Text</th>", "<th>Perplexity</th>", "Does the text do what the prompt does?"),
        "2_judge_a_soft_prompt": (
            "Is this film review",
            "it acts against what its text does",
            "No text explains",
            "yes",
        ),
        "3_search_under_constraints": ("nats per token", "by hand", "improved from", "film review"),
    }[name]:
        assert words in printed


def test_there_are_three() -> None:
    assert len(NAMES) == 3


@pytest.mark.parametrize("name", NAMES)
def test_it_is_stored_without_outputs(name: str) -> None:
    """So that a change of a notebook reads as one."""
    cells = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert code
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert cells[0].source.startswith("# ")
