"""Processes that are killed while they save: what is left must be one prompt's files, the old ones or the new ones.

    python -m benchmarks.kills --kills 300

A process saves two prompts of different lengths by turns into one folder, whose card somebody wrote into; it gets
SIGKILL after a random time. Then the folder is loaded, as anybody would, and every file in it must tell of the prompt
in the weights. Prints how often a file was lost or told of another prompt, and how often the kill fell into a save.
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
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model

from peft_interp import InterpPromptConfig, embedded
from peft_interp.hub.adapter_files import SAVED_FILES
from peft_interp.storage.atomic import COLLECTED, COMPLETE

PROMPTS = ([50, 60, 70, 80], [90, 100, 110, 120, 130, 140])
WRITTEN = "These words are the user's own and must never be lost."
MOST_WAIT = 0.25  # seconds until a kill, at most


def model_with(ids: Sequence[int]) -> Any:
    """An adapter on the embedded model."""
    config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=len(ids))
    config.tokenizer_name_or_path = embedded.MODEL_PATH
    model: Any = get_peft_model(embedded.load_model(), config)
    model.use_prompt(list(ids))
    return model


def save_for_ever(models: Sequence[Any], folder: Path) -> None:
    """By turns, until the process is killed."""
    turn = 0
    while True:
        models[turn % len(models)].save_pretrained(folder, save_embedding_layers=False)
        turn += 1


def killed_save(models: Sequence[Any], folder: Path, seconds: float) -> str:
    """Start a process that saves, kill it, and tell what the kill fell into: "collecting", "moving" or "between"."""
    child = os.fork()
    if child == 0:
        try:
            save_for_ever(models, folder)
        finally:
            os._exit(1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if (folder / COMPLETE).exists():
        return "moving"
    return "collecting" if list(folder.glob(f"{COLLECTED}*")) else "between"


def loaded(folder: Path, base: Any) -> Any:
    """The prompt, as `PeftModel.from_pretrained` loads it; a warning of what contradicts it is an error here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of PEFT, about a name of transformers
        warnings.simplefilter("error", UserWarning)
        try:
            return PeftModel.from_pretrained(base, folder)
        except ValueError as error:  # the config was read before the interrupted save was finished
            if "load it again" not in str(error):
                raise
            return PeftModel.from_pretrained(base, folder)


def problems(folder: Path, base: Any) -> list[str]:
    """What is lost or told of another prompt, after the folder was loaded."""
    model = loaded(folder, base)
    ids = model.prompt_token_ids()
    if ids not in [list(prompt) for prompt in PROMPTS]:
        return [f"the weights hold {ids}"]
    text, found = embedded.load_tokenizer().decode(ids), []
    names = [name for name in SAVED_FILES if name != "prompt_report.json"]
    found += [f"{name} is lost" for name in names if not (folder / name).is_file()]
    if found:
        return found
    found += ["prompt.txt"] if (folder / "prompt.txt").read_text() != text else []
    facts, config = (json.loads((folder / name).read_text()) for name in ("prompt.json", "adapter_config.json"))
    found += ["prompt.json"] if (facts["ids"], facts["text"]) != (ids, text) else []
    found += ["adapter_config.json"] if config["num_virtual_tokens"] != len(ids) else []
    card = (folder / "README.md").read_text()
    found += ["README.md is without the user's words"] if WRITTEN not in card else []
    found += ["README.md"] if str(text) not in card else []
    return found


def kill_saves(folder: Path, kills: int, seed: int = 0) -> dict[str, Any]:
    """So many processes killed while they save into one folder.

    Args:
        folder: is made anew.
        kills: how many.
        seed: of the waits.

    Returns:
        `kills`, `lost`, `mixed` (with `examples` of both), and `fell_into`, how many kills by what they fell into.
    """
    shutil.rmtree(folder, ignore_errors=True)
    models, base = [model_with(prompt) for prompt in PROMPTS], embedded.load_model()
    models[0].save_pretrained(folder, save_embedding_layers=False)
    card = folder / "README.md"
    card.write_text(card.read_text() + f"\n{WRITTEN}\n")
    waits, fell = random.Random(seed), Counter[str]()
    examples: list[str] = []
    for _ in range(kills):
        fell[killed_save(models, folder, waits.uniform(0.0, MOST_WAIT))] += 1
        examples += problems(folder, base)
    lost = [problem for problem in examples if "lost" in problem or "without" in problem]
    return {
        "kills": kills,
        "lost": len(lost),
        "mixed": len(examples) - len(lost),
        "fell_into": dict(fell),
        "examples": examples[:5],
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(kill_saves(Path(scratch) / "adapter", arguments.kills, arguments.seed), indent=1))


if __name__ == "__main__":
    main()
