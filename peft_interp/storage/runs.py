"""One run in an output folder, and which of its checkpoints are complete."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

from peft_interp.storage.atomic import finish_save

if TYPE_CHECKING:
    from types import FrameType

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = ".peft-interp-run"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_STATE = "trainer_state.json"


class RunLock:
    """Keeps other processes from training in the same output folder.

    The system holds the lock and gives it up when the process ends, however it ends; a left-over file holds nothing.
    Where the system has no such locks (Windows, some network folders) there is no protection.

    Args:
        folder: the output folder.

    Raises:
        ValueError: a process trains there; it is named.
    """

    def __init__(self, folder: str | Path) -> None:
        self._handle: int | None = None
        path = Path(folder) / LOCK_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        if fcntl is None:
            return
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            if other == str(os.getpid()):  # an earlier run of this process, which an exception ended
                return
            raise ValueError(
                f"process {other} is training in {str(folder)!r}; two runs would overwrite each other's checkpoints. "
                "Give this one another `output_dir`, or wait until that one has ended."
            ) from None
        except OSError:  # no locks on this file system
            os.close(handle)
            return
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        self._handle = handle

    def release(self) -> None:
        """Give the folder free; the file stays, since removing it could take a newer run's lock away."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __del__(self) -> None:
        self.release()


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """While open, SIGTERM raises KeyboardInterrupt as Ctrl-C does, so that what is to be written is written.

    A handler that somebody else has set stays. Only the main thread can have one.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(f"signal {signal.Signals(number).name}")

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def last_complete_checkpoint(folder: str | Path, needed: tuple[str, ...] = ()) -> str | None:
    """The newest checkpoint below an output folder that was written to its end; for `resume_from_checkpoint`.

    Warns about newer ones that a kill left half-written; they are left as they are.

    Args:
        folder: the output folder.
        needed: files that a checkpoint must have besides Trainer's state and what it holds.

    Returns:
        Its path, or None where there is none.
    """
    folder = Path(folder)
    found = [path for path in (folder.iterdir() if folder.is_dir() else ()) if _CHECKPOINT.fullmatch(path.name)]
    for path in sorted(found, key=lambda path: -int(path.name.partition("-")[2])):
        problem = _problem(path, needed)
        if problem is None:
            return str(path)
        warnings.warn(f"{str(path)!r} is passed over: it is half-written ({problem}).", stacklevel=3)
    return None


def _problem(checkpoint: Path, needed: tuple[str, ...]) -> str | None:
    """What is wrong with a checkpoint; Trainer writes its state last."""
    finish_save(checkpoint)
    try:
        json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"{_STATE} is missing or cut off"
    for name in needed:
        if not (checkpoint / name).is_file():
            return f"{name} is missing"
    for path in checkpoint.rglob("*"):
        try:
            if path.suffix == ".safetensors":
                with safe_open(str(path), framework="pt"):
                    pass
            elif path.suffix in (".pt", ".pth", ".bin") and not _is_whole_zip(path):
                return f"{path.name} is cut off"
        except Exception:  # of a class that safetensors does not export
            return f"{path.name} is cut off"
    return None


def _is_whole_zip(path: Path) -> bool:
    """Files of `torch.save` are zip files, whose table stands at their end."""
    return path.is_file() and (path.stat().st_size > 0) and zipfile.is_zipfile(path)
