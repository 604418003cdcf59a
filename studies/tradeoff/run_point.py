"""One point of the study from beginning to end: search within the budget, measure what was found, say what it cost."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, replace
from typing import Any

import peft
import psutil
import torch
import transformers

import peft_interp
from studies.tradeoff.bench import make_bench, thinned
from studies.tradeoff.config import Study, portable
from studies.tradeoff.measure import Measurement
from studies.tradeoff.methods import METHODS
from studies.tradeoff.points import Point


class PeakMemory:
    """Highest resident memory of this process while the block runs, bytes, looked at every 20 ms."""

    def __enter__(self) -> PeakMemory:
        self.peak, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._stop.wait(0.02):
            self.peak = max(self.peak, process.memory_info().rss)

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        self.peak = max(self.peak, psutil.Process().memory_info().rss)


def about(study: Study, point: Point) -> dict[str, Any]:
    """What a record says of its study."""
    modules = (peft_interp, peft, torch, transformers)
    return {
        "model": portable(study.model_name_or_path),
        "second_model": study.second_model and portable(study.second_model),
        "study": {
            "task": asdict(study.task(point.task)),
            "data_dir": portable(study.data_dir),
            "dtype": study.dtype,
            "device": torch.cuda.get_device_name() if study.device == "cuda" else study.device,
            "tokenizer": portable(study.tokenizer_name or study.model_name_or_path),
            "prompt_length": study.prompt_length,
            "test_rows": study.test_rows,
            "faithfulness_rows": study.faithfulness_rows,
            "front_size": study.front_size,
            "shots": study.shots,
            "versions": {module.__name__: module.__version__ for module in modules},
        },
    }


def run_point(study: Study, point: Point) -> dict[str, Any]:
    """The record of a point, with everything that is needed to redo it.

    Raises:
        ValueError: an unknown method, and whatever the method raises.
    """
    if point.method not in METHODS:
        raise ValueError(f"`method={point.method!r}` is unknown; use one of {', '.join(METHODS)}.")
    with PeakMemory() as memory:
        bench = make_bench(replace(study, budget=point.budget), study.task(point.task), point.split, point.seed)
        begun, working = time.perf_counter(), time.process_time()
        found = METHODS[point.method](bench, **dict(point.values))
        searched, worked = time.perf_counter() - begun, time.process_time() - working
    measure = Measurement(study, bench)
    prompts = [measure.of(prompt) for prompt in thinned(found.prompts, study.front_size)]
    return {
        **{name: value for name, value in asdict(point).items() if name != "values"},
        "values": dict(point.values),
        "evaluations": bench.budget.spent,
        "seconds": searched,
        "cpu_seconds": worked,
        "seconds_measuring": time.perf_counter() - begun - searched,
        "cpu_seconds_measuring": time.process_time() - working - worked,
        "peak_bytes": memory.peak,
        **about(study, point),
        "rows": {name: len(rows) for name, rows in bench.data.rows.items()},
        "prompts": prompts,
        "details": found.details,
    }
