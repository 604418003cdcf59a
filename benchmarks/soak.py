"""Searches that are killed again and again, resumed each time, and compared with runs that nobody touched.

    python -m benchmarks.soak --minutes 30

By turns `RLPromptTrainer` and `PromptSearchTrainer` search on the embedded model, each in a process that gets SIGKILL
after a random time and is started again with the newest complete checkpoint, until it is done. Then its archive, prompt
and search must equal those of the uninterrupted run. Prints runs, kills, and how many runs differed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peft import get_peft_model

from peft_interp import (
    InterpPromptConfig,
    PromptSearchConfig,
    PromptSearchTrainer,
    RLPromptConfig,
    RLPromptTrainer,
    Verbalizer,
    embedded,
)
from peft_interp.storage.runs import last_complete_checkpoint

KINDS: dict[str, tuple[type[Any], type[Any], dict[str, Any]]] = {
    "rl": (RLPromptTrainer, RLPromptConfig, {"learning_rate": 1e-3, "policy_hidden_size": 64}),
    "search": (PromptSearchTrainer, PromptSearchConfig, {"human_starts": 2, "population_size": 6}),
}
STEPS, ROWS, DONE = 6, 12, "done.json"
MOST_KILLS = 60  # of one run; after so many it is left to end


def trainer_of(kind: str, folder: Path, seed: int) -> Any:
    """A small search that saves every step."""
    trainer_class, config_class, own = KINDS[kind]
    task = embedded.TASKS["sentiment"]
    config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=5, allowed_tokens="printable")
    config.tokenizer_name_or_path = embedded.MODEL_PATH
    model = get_peft_model(embedded.load_model(), config)
    rows = embedded.load_data("sentiment")["train"].select(range(2 * ROWS))
    saving = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 2}
    quiet = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "logging_steps": 1, "save_total_limit": 3}
    size = {"max_steps": STEPS, "prompts_per_step": 4, "eval_candidates": 2, "seed": seed}
    return trainer_class(
        model,
        args=config_class(output_dir=str(folder), **saving, **quiet, **size, **own),
        train_dataset=rows.select(range(ROWS)),
        eval_dataset=rows.select(range(ROWS, 2 * ROWS)),
        processing_class=embedded.load_tokenizer(),
        verbalizer=Verbalizer(task.template, task.label_words),
    )


def run_to_the_end(kind: str, folder: Path, seed: int) -> None:
    """Train, from the newest complete checkpoint if there is one, and write down what came out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checkpoint = last_complete_checkpoint(folder, ("prompt_search.pt", "optimizer.pt", "scheduler.pt"))
        trainer = trainer_of(kind, folder, seed)
        trainer.train(resume_from_checkpoint=checkpoint)
    best = trainer.search.best
    found = {
        "ids": list(trainer.model.prompt_token_ids()),
        "score": None if best is None else best.score,
        "archive": [repr(asdict(record)) for record in trainer.search.archive.records],
    }
    (folder / DONE).write_text(json.dumps(found))


def in_a_process(work: Callable[[], None], seconds: float | None) -> bool:
    """Run in a process of its own, killed after so many seconds; returns whether it came to its end.

    Raises:
        RuntimeError: it failed by itself.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, 0 if end is None else os.WNOHANG)
        if done:
            if status:
                raise RuntimeError(f"a run failed with status {status}; see what it printed.")
            return True
        if end is not None and time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1] == 0
        time.sleep(0.02)


def soaked(kind: str, place: Path, seed: int, waits: random.Random) -> tuple[int, bool]:
    """One search killed until it is done: how many kills, and whether it equals the uninterrupted run."""
    whole, killed = place / "whole", place / "killed"
    began = time.monotonic()
    in_a_process(lambda: run_to_the_end(kind, whole, seed), None)
    takes, kills = time.monotonic() - began, 0
    while not (killed / DONE).exists():
        seconds = None if kills >= MOST_KILLS else waits.uniform(0.1, 0.8) * takes
        if not in_a_process(lambda: run_to_the_end(kind, killed, seed), seconds):
            kills += 1
    same = json.loads((whole / DONE).read_text()) == json.loads((killed / DONE).read_text())
    return kills, same


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    end, waits = time.monotonic() + 60 * arguments.minutes, random.Random(arguments.seed)
    counted: dict[str, Any] = {"runs": 0, "kills": 0, "different": []}
    began = time.monotonic()
    while time.monotonic() < end:
        seed = arguments.seed + counted["runs"]
        kind = list(KINDS)[counted["runs"] % len(KINDS)]
        place = Path(tempfile.mkdtemp(prefix="soak-"))
        kills, same = soaked(kind, place, seed, waits)
        shutil.rmtree(place)
        counted["runs"] += 1
        counted["kills"] += kills
        counted["different"] += [] if same else [f"{kind}, seed {seed}"]
    counted["minutes"] = round((time.monotonic() - began) / 60, 1)
    print(json.dumps(counted, indent=1))


if __name__ == "__main__":
    main()
