"""What starting costs: importing the package beside importing PEFT, and asking the command line what it can do.

Counted in seconds of the processor, which on an idle machine are those of the clock: an import waits for nothing.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import peft_interp
from tests import processes

# The package that is tested here, whichever is installed.
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(peft_interp.__file__).parents[1])}
# What an import of the package, or an answer about the command line, must not drag along.
HEAVY_BESIDE_PEFT = ("datasets", "evaluate", "pandas", "pyarrow", "rich", "spellchecker", "tensorboard", "trl")
HEAVY = (*HEAVY_BESIDE_PEFT, "huggingface_hub", "numpy", "peft", "torch", "transformers")
ATTEMPTS = 3  # the quickest counts: other work on the machine only ever adds
IMPORT_SECONDS, ANSWER_SECONDS = 0.3, 0.5

IMPORT = """
import json, sys, time
import peft
begun = time.process_time()
import peft_interp
seconds = time.process_time() - begun
print(json.dumps([seconds, sorted({name.split(".")[0] for name in sys.modules}), sorted(sys.modules)]))
"""
# What the installed script does, whose name tells it from other programs.
SCRIPT = """
import sys
from peft_interp.cli import main
if __name__ == "__main__":
    sys.exit(main())
"""


def python(*arguments: str) -> str:
    finished = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished.stdout


def test_an_import_costs_little_beyond_pefts() -> None:
    quickest = float("inf")
    for _ in range(ATTEMPTS):
        seconds, packages, modules = json.loads(python("-c", IMPORT))
        assert not set(packages) & set(HEAVY_BESIDE_PEFT)
        assert not {"transformers.trainer", "peft_interp.report", "peft_interp.scoring"} & set(modules)
        quickest = min(quickest, seconds)
        if quickest < IMPORT_SECONDS:
            break
    assert quickest < IMPORT_SECONDS


def test_an_import_is_all_it_takes_to_register() -> None:
    code = "import peft_interp, peft.mapping; print('INTERP_PROMPT' in peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING)\n"
    code += "print(peft_interp.embedded.MODEL_PATH, peft_interp.metrics.path('scrutability'))"
    registered, paths = python("-c", code).splitlines()
    assert registered == "True"
    assert "evaluate_scripts" in paths


@pytest.mark.parametrize("start", ["script", "module"])
@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["read", "--help"], ["push", "--help"]])
def test_the_command_line_answers_at_once(tmp_path: Path, start: str, arguments: list[str]) -> None:
    script = tmp_path / "peft-interp"
    script.write_text(SCRIPT)
    how = [str(script)] if start == "script" else ["-m", "peft_interp"]
    quickest = float("inf")
    for _ in range(ATTEMPTS):
        before = seconds_of_children()
        ran = subprocess.run(
            [sys.executable, "-X", "importtime", *how, *arguments],
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
            env=ENVIRONMENT,
        )
        quickest = min(quickest, seconds_of_children() - before)
        assert "peft-interp" in ran.stdout
        imported = {line.rpartition("|")[2].strip().split(".")[0] for line in ran.stderr.splitlines()}
        assert "peft_interp" in imported
        assert not imported & set(HEAVY)
        if quickest < ANSWER_SECONDS:
            break
    assert quickest < ANSWER_SECONDS


def seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_command_of_a_fresh_process_knows_our_adapters(tmp_path: Path) -> None:
    """Without the import of the package to register it, a command does so itself."""
    from peft import get_peft_model

    from peft_interp import InterpPromptConfig, embedded

    config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    get_peft_model(embedded.load_model(), config).save_pretrained(tmp_path / "adapter")
    script = tmp_path / "peft-interp"
    script.write_text(SCRIPT)
    asked = ["evaluate", str(tmp_path / "adapter")]
    told, again = (
        processes.run(*command, env=ENVIRONMENT, check=True).stdout
        for command in ([str(script), *asked, "--base-model", "embedded"], ["-m", "peft_interp", *asked])
    )
    assert json.loads(told)["method"] == "INTERP_PROMPT"
    assert json.loads(again)["text"] == json.loads(told)["text"]
