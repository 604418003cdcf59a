"""What is kept of a prompt while it trains: its scores, its history in Trainer's log, its lines for TensorBoard."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from peft_interp.metrics.reading import read_prompt
from peft_interp.metrics.results import PromptReading, Scrutability
from peft_interp.metrics.scrutability import measure_scrutability

IDS = "prompt/ids"
SCORES = ("nll", "perplexity", "readability", "readable", "cosine_distance")
HISTORY_FILE = "prompt_history.jsonl"
SHOWN_LETTERS = 60  # of the text in the progress line; Trainer shows nothing of texts above 100


def score_prompt(reading: PromptReading, model: Any, tokenizer: Any) -> dict[str, float]:
    """The scores of a prompt that are cheap enough for every log.

    Args:
        reading: the prompt as text.
        model: the adapter; its base model judges the text.
        tokenizer: the base model's.

    Returns:
        For tokens `nll` (nats per token), `perplexity`, `readability` (0 to 1) and `readable` (1 or 0), empty where
        the base model is no causal LM; for vectors `cosine_distance` to their nearest tokens, mean, 0 to 2.
    """
    if not reading.discrete:
        return {"cosine_distance": math.fsum(token.cosine_distance for token in reading.tokens) / len(reading.tokens)}
    base = model.get_base_model()
    if base.config.is_encoder_decoder or base.get_output_embeddings() is None:
        return {}
    judged: Scrutability = measure_scrutability(reading.text, model, tokenizer, ids=reading.ids)
    known = {"readability": judged.score, "readable": float(judged.readable)}
    for name in ("nll", "perplexity"):
        known[name] = judged.measures[name].value
    return {name: value for name, value in known.items() if math.isfinite(value)}


def reading_scores(model: Any, tokenizer: Any) -> tuple[PromptReading, dict[str, float]]:
    """Any prompt adapter with vectors among the inputs, read and scored.

    Raises:
        ValueError: an adapter that is no prompt, or one without such vectors.
    """
    reading = read_prompt(model, tokenizer, neighbours=1)
    return reading, score_prompt(reading, model, tokenizer)


def history(log: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every changed prompt in Trainer's `state.log_history`, as {step, text, ids, scores}, oldest first.

    Trainer keeps that log in its checkpoints, so a resumed run has the same history as an uninterrupted one.
    """
    return [
        {
            "step": entry["step"],
            "text": entry.get("prompt_text"),
            "ids": entry[IDS],
            "scores": {name: entry[f"prompt/{name}"] for name in SCORES if f"prompt/{name}" in entry},
        }
        for entry in log
        if IDS in entry
    ]


def write_history(records: list[dict[str, Any]], kept_ids: list[int], folder: str | None) -> None:
    """One JSON line for each prompt; `kept` marks the latest one that equals the prompt training ended with."""
    if not records or folder is None:
        return
    last = max((place for place, record in enumerate(records) if record["ids"] == kept_ids), default=None)
    lines = [json.dumps({**record, "kept": place == last}, ensure_ascii=False) for place, record in enumerate(records)]
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / HISTORY_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def shortened(text: str) -> str:
    """A prompt for one line of a progress bar."""
    return text if len(text) <= SHOWN_LETTERS else text[: SHOWN_LETTERS - 1] + "\N{HORIZONTAL ELLIPSIS}"


def tensorboard_writer(args: TrainingArguments) -> Any | None:
    """A writer beside that of Trainer, if TensorBoard is among the trackers.

    Trainer's own writer logs before any callback of the user and is not handed to one. A second file in the same
    folder would make TensorBoard stop reading the first, so ours stands in the folder `prompt` inside it and shows as
    a run of that name.
    """
    if "tensorboard" not in (args.report_to or ()):
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(log_dir=str(_logging_folder(args) / "prompt"))


def _logging_folder(args: TrainingArguments) -> Path:
    """Where Trainer's TensorBoard callback, which begins before ours, has just begun its file."""
    given = os.getenv("TENSORBOARD_LOGGING_DIR")
    if given is not None:
        return Path(given).expanduser()
    begun = [path for path in Path(str(args.output_dir)).rglob("events.out.tfevents.*") if path.parent.name != "prompt"]
    if begun:
        return max(begun, key=lambda path: path.stat().st_mtime_ns).parent
    return Path(str(args.output_dir)) / "runs"
