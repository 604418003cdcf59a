"""Points over several processes, each with one thread of its own; whatever goes wrong with one is kept beside it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from studies.tradeoff.config import Study
from studies.tradeoff.points import Point

Outcome = tuple[Point, dict[str, Any]]


def run_all(study: Study, points: Sequence[Point], processes: int) -> Iterator[Outcome]:
    """Each point with its record as it is done; one that failed has `error` and `traceback` in it.

    Args:
        study: the study.
        points: what is to be done.
        processes: at the same time; 0 runs in this process.
    """
    if not processes:
        yield from ((point, attempt(study, point)) for point in points)
        return
    waiting = list(reversed(points))
    while waiting:
        yield from _one_pool(study, waiting, processes)


def _one_pool(study: Study, waiting: list[Point], processes: int) -> Iterator[Outcome]:
    """Work through `waiting` until it is empty or a process dies; who was running then counts as failed."""
    context = multiprocessing.get_context("spawn")
    running: dict[Future[dict[str, Any]], Point] = {}
    with ProcessPoolExecutor(processes, context, initializer=_prepare) as pool:
        while waiting or running:
            while waiting and len(running) < processes:
                point = waiting.pop()
                try:
                    running[pool.submit(attempt, study, point)] = point
                except BrokenProcessPool:  # a process has just died; this point has its turn in the next pool
                    waiting.append(point)
                    break
            if not running:
                return
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            broken = False
            for future in finished:
                point = running.pop(future)
                try:
                    yield point, future.result()
                except BrokenProcessPool as error:
                    broken = True
                    yield point, _failed(point, error)
            if broken:
                yield from ((point, _failed(point, "a process beside it died")) for point in running.values())
                return


def attempt(study: Study, point: Point) -> dict[str, Any]:
    """A point's record, or what went wrong."""
    try:
        from studies.tradeoff.run_point import run_point

        return run_point(study, point)
    except Exception as error:
        return {**_failed(point, error), "traceback": traceback.format_exc()}


def _failed(point: Point, error: object) -> dict[str, Any]:
    return {"key": point.key, "point": str(point), "error": f"{type(error).__name__}: {error}"}


def _prepare() -> None:
    """Ends with the study, even a killed one; one thread, no bars, and only errors from the libraries."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import datasets
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    logging.getLogger().setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")  # PEFT 0.21.2


def _end_with_parent() -> None:
    """Wait until the study's process is gone, then leave at once: nobody would get the result."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
