"""A limit on how long a user's function may take, in the thread that calls it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


@contextmanager
def time_limit(seconds: float | None, words: str) -> Iterator[None]:
    """Raise TimeoutError inside the block when it takes longer.

    The alarm clock of the process is used, and put back as it was: there is no limit in other threads than the main
    one, on systems without it (Windows), or while code that gives Python no turn runs.

    Args:
        seconds: None for no limit.
        words: the error's.
    """
    main = threading.current_thread() is threading.main_thread()
    if seconds is None or not main or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(words)

    before = signal.signal(signal.SIGALRM, stop)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, interval)
        signal.signal(signal.SIGALRM, before)
