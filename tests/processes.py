"""A script, `-c` code or `-m` module in a fresh process, as `python` runs it, without loading the libraries again.

Loading torch, transformers and PEFT is most of such a process's time. One process a test run loads them, and forks for
each call; the package itself is loaded by the child. A variable that a library reads when it is loaded (`HF_ENDPOINT`,
`HF_HOME`) needs a process of its own that has loaded them with it, which is kept too.
Where a process cannot fork, a new interpreter starts.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

LIBRARIES = (
    *("torch", "torch._dynamo", "numpy", "pandas", "pyarrow.dataset", "accelerate", "datasets", "evaluate", "rich"),
    *("transformers.trainer", "transformers.models.llama.modeling_llama", "transformers.models.gpt2.modeling_gpt2"),
    *("peft", "psutil", "yaml", "jinja2", "httpx"),
)
READ_WHEN_LOADED = ("HF_", "KMP_", "MKL_", "OMP_", "OPENBLAS_", "PYTORCH_", "TORCH_", "TRANSFORMERS_", "XDG_")
SECONDS = 600
FORKS = sys.platform == "linux"


def run(
    *arguments: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = SECONDS,
    check: bool = False,
) -> subprocess.CompletedProcess[str]:
    """What `subprocess.run([sys.executable, *arguments], capture_output=True, text=True)` does."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = start(*arguments, cwd=cwd, env=env, stdout=out.fileno(), stderr=err.fileno())
        try:
            code = child.wait(timeout)
        finally:
            child.kill()
        printed = []
        for file in (out, err):
            file.seek(0)
            printed.append(file.read())
    finished = subprocess.CompletedProcess([sys.executable, *arguments], code, *printed)
    if check:
        finished.check_returncode()
    return finished


def start(
    *arguments: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
) -> Any:
    """Start it and go on; the result has `pid`, `wait(timeout)` and `kill()`, as that of `subprocess.Popen`."""
    environment = dict(os.environ if env is None else env)
    if not FORKS:
        command = [sys.executable, *arguments]
        return subprocess.Popen(command, cwd=cwd, env=environment, stdout=stdout, stderr=stderr)
    loaded = tuple(sorted((k, v) for k, v in environment.items() if k.startswith(READ_WHEN_LOADED)))
    return _Child(_parent(loaded), arguments, str(cwd or Path.cwd()), environment, stdout, stderr)


class _Child:
    """A child of the process that has the libraries loaded: its number, then its exit status, come through a pipe."""

    def __init__(
        self,
        parent: socket.socket,
        arguments: tuple[str, ...],
        cwd: str,
        environment: dict[str, str],
        stdout: int | None,
        stderr: int | None,
    ) -> None:
        self._status, status = os.pipe()
        job = json.dumps([arguments, cwd, environment]).encode()
        files = [1 if stdout is None else stdout, 2 if stderr is None else stderr, status]
        socket.send_fds(parent, [len(job).to_bytes(4, "big")], files)
        parent.sendall(job)
        os.close(status)
        self.pid = int(self._read(SECONDS))
        self._code: int | None = None

    def _read(self, timeout: float) -> bytes:
        if not select.select([self._status], [], [], timeout)[0]:
            raise TimeoutError
        told = os.read(self._status, 16)
        assert told, "the process that forks is gone"
        return told

    def wait(self, timeout: float = SECONDS) -> int:
        if self._code is None:
            try:
                self._code = int(self._read(timeout))
            except TimeoutError:
                raise subprocess.TimeoutExpired("python", timeout) from None
            os.close(self._status)
        return self._code

    def kill(self) -> None:
        if self._code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait()


@functools.cache
def _parent(loaded: tuple[tuple[str, str], ...]) -> socket.socket:
    """A process with the libraries, loaded with these variables; it ends when our end of the pair closes."""
    ours, theirs = socket.socketpair()
    others = {k: v for k, v in os.environ.items() if not k.startswith(READ_WHEN_LOADED)}
    command = [sys.executable, __file__, str(theirs.fileno())]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout"), subprocess.DEVNULL)
    process = subprocess.Popen(command, env={**others, **dict(loaded)}, pass_fds=[theirs.fileno()], **pipes)
    theirs.close()
    atexit.register(_end, process, ours)
    return ours


def _end(process: subprocess.Popen[bytes], ours: socket.socket) -> None:
    ours.close()
    process.wait()


def serve(asked: socket.socket) -> None:
    """Load the libraries, then fork for each call until the caller is gone."""
    given = {os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    path = [entry for entry in sys.path[1:] if entry not in given]
    for name in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)
    while True:
        size, files, *_ = socket.recv_fds(asked, 4, 3)
        if not size:
            return
        job = asked.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
        if os.fork() == 0:
            asked.close()
            _watch(json.loads(job), files, path)
        for file in files:
            os.close(file)
        with suppress(ChildProcessError):  # those that are done
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _watch(job: Any, files: list[int], path: list[str]) -> None:
    """Run the job in a child and tell its number and its exit status, which only its parent learns."""
    out, err, status = files
    child = os.fork()
    if child == 0:
        os.close(status)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.close(out)
        os.close(err)
        os._exit(_as_an_interpreter(*job, path))
    os.write(status, str(child).ljust(16).encode())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(status, str(code).ljust(16).encode())
    os._exit(0)


def _as_an_interpreter(arguments: list[str], cwd: str, environment: dict[str, str], path: list[str]) -> int:
    """What `python *arguments` does from here on: its exit status."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    entries = environment.get("PYTHONPATH", "")
    sys.path[:] = [*(entries.split(os.pathsep) if entries else ()), *path]
    _set_warnings(arguments)
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.modules["__main__"].__builtins__ = __builtins__  # type: ignore[attr-defined]
    code = 0
    try:
        _execute(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _set_warnings(arguments: list[str]) -> None:
    """Take `-W` off the arguments; here they come before what the libraries have set while they were loaded."""
    sys.warnoptions[:] = []
    while arguments[0] == "-W":
        sys.warnoptions.append(arguments[1])
        del arguments[:2]
    warnings._processoptions(sys.warnoptions)  # type: ignore[attr-defined]


def _execute(arguments: list[str]) -> None:
    """Run as `python ARGUMENTS` does, which begins `sys.path` with an entry of its own for each of the three ways."""
    main = sys.modules["__main__"].__dict__
    how, *rest = arguments
    if how == "-c":
        sys.argv[:] = ["-c", *rest[1:]]
        sys.path.insert(0, "")
        exec(compile(rest[0], "<string>", "exec"), main)
    elif how == "-m":
        import runpy

        sys.argv[:] = ["-m", *rest[1:]]
        sys.path.insert(0, str(Path.cwd()))
        runpy._run_module_as_main(rest[0])  # type: ignore[attr-defined]
    else:
        sys.argv[:] = arguments
        sys.path.insert(0, str(Path(how).resolve().parent))
        main.update(__file__=how, __cached__=None)
        exec(compile(Path(how).read_bytes(), how, "exec"), main)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
