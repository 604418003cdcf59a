"""A forked process is what a new interpreter would be: nothing of it is to be seen but the time it takes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import processes

TELL = """
import importlib.util, json, os, sys, warnings

def raises(kind):
    try:
        warnings.warn("this", kind)
    except kind:
        return True

print(json.dumps({
    "argv": sys.argv, "path": sys.path, "cwd": os.getcwd(), "name": __name__, "options": sys.warnoptions,
    "main": sorted(set(vars(sys.modules["__main__"])) - {"__annotations__", "__cached__", "__loader__", "__doc__"}),
    "environment": dict(os.environ), "terminal": [sys.stdout.isatty(), sys.stderr.isatty()],
    "package": importlib.util.find_spec("peft_interp").origin,
    "raises": [raises(kind) for kind in (UserWarning, FutureWarning, DeprecationWarning)],
}))
"""


@pytest.mark.parametrize("how", ["code", "script", "module"])
def test_it_starts_as_an_interpreter_does(how: str, tmp_path: Path) -> None:
    (tmp_path / "tell.py").write_text(TELL)
    start = {"code": ["-c", TELL], "script": ["tell.py"], "module": ["-m", "tell"]}[how]
    environment = {**os.environ, "COLUMNS": "77", "PYTHONPATH": str(Path(__file__).parents[1])}
    arguments = ["-W", "error", "-W", "ignore::FutureWarning", *start, "one", "--two"]
    new = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    forked = processes.run(*arguments, cwd=tmp_path, env=environment)
    assert (forked.returncode, forked.stderr) == (0, new.stderr)
    assert json.loads(forked.stdout) == json.loads(new.stdout)


ENDS = {
    "quiet": ("pass", 0, ""),
    "number": ("import sys; sys.exit(3)", 3, ""),
    "words": ("import sys; sys.exit('no')", 1, "no\n"),
    "error": ("raise ValueError('wrong')", 1, "ValueError: wrong\n"),
    "warning": ("import warnings; warnings.warn('look')", 1, "UserWarning: look\n"),
    "killed": ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL, ""),
    "at exit": ("import atexit, sys; atexit.register(sys.stderr.write, 'bye')", 0, "bye"),
    "thread": ("import sys, threading; threading.Timer(0.1, sys.stderr.write, ['late']).start()", 0, "late"),
}


@pytest.mark.parametrize("end", ENDS)
def test_it_ends_as_an_interpreter_does(end: str) -> None:
    code, expected, told = ENDS[end]
    finished = processes.run("-W", "error", "-c", code)
    assert finished.returncode == expected
    assert finished.stderr.endswith(told)
    assert told or not finished.stderr
    assert finished.stdout == ""


def test_libraries_read_their_variables_and_the_package_is_loaded_anew(tmp_path: Path) -> None:
    code = "import sys; print('peft_interp' in sys.modules, 'torch' in sys.modules)\n"
    code += "from huggingface_hub import HfApi, constants as c; print(c.ENDPOINT, HfApi().endpoint, c.HF_HOME)"
    own = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    told = processes.run("-c", code, env={**os.environ, **own}).stdout
    assert told == f"False {processes.FORKS}\nhttp://127.0.0.1:9 http://127.0.0.1:9 {tmp_path}\n"
    assert "127.0.0.1" not in processes.run("-c", code).stdout


def test_nothing_is_left_of_one_process_in_the_next(tmp_path: Path) -> None:
    import torch

    code = "import os, random, torch, numpy; print(os.environ.pop('X'), torch.rand(1).item()); os.environ['Y'] = ''\n"
    code += "torch.set_default_dtype(torch.float64); print(random.random(), numpy.random.rand())"
    first, second = (processes.run("-c", code, env={**os.environ, "X": "1"}).stdout.split() for _ in range(2))
    assert first[:2] == second[:2], "torch has one seed, in every new process"
    assert set(first[2:]).isdisjoint(second[2:])
    assert torch.get_default_dtype() == torch.float32
    assert processes.run("-c", "import os; print('Y' in os.environ)").stdout == "False\n"


def test_one_that_takes_too_long_is_killed() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        processes.run("-c", "import time; time.sleep(60)", timeout=0.2)
    with pytest.raises(subprocess.CalledProcessError):
        processes.run("-c", "1 / 0", check=True)
