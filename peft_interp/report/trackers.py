"""What experiment trackers get of a prompt while a Trainer trains it: its figures and its text, each as they take it.

Trainer's own tracker callbacks log before any callback of the user, so what a user's callback adds to a log comes too
late for them. Each function of `TRACKERS` hands it to the run that Trainer has opened, by the tracker's public API.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_interp.report.texts import fenced

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter
    from transformers import TrainingArguments

TEXT = "prompt_text"
Track = Callable[[Mapping[str, Any], int, bool], None]  # of figures and text, the step, whether the text is new
LONGEST_TAG = 5000  # letters of an MLflow tag


class TensorBoard:
    """A writer beside that of Trainer.

    Trainer's own is not handed to any callback. A second file in the same folder would make TensorBoard stop reading
    the first, so ours stands in the folder `prompt` inside it and shows as a run of that name.

    Args:
        args: of the Trainer, whose TensorBoard callback has begun its file.
    """

    def __init__(self, args: TrainingArguments) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: SummaryWriter = SummaryWriter(log_dir=str(_logging_folder(args) / "prompt"))

    def __call__(self, known: Mapping[str, Any], step: int, changed: bool) -> None:
        """Figures at every log, the text whenever it changed."""
        for name, value in _figures(known).items():
            self.writer.add_scalar(name, value, step)
        if changed and TEXT in known:
            self.writer.add_text("prompt/text", fenced(known[TEXT]), step)
        self.writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self.writer.close()


def track_with_mlflow(known: Mapping[str, Any], step: int, changed: bool) -> None:
    """Figures as metrics; every new text as the file `prompt/step-N.txt`, the latest as the tag `prompt_text`."""
    mlflow = import_module("mlflow")
    if mlflow.active_run() is None:  # Trainer has ended its run, and another is not ours to begin
        return
    mlflow.log_metrics(_figures(known), step=step)
    if changed and TEXT in known:
        mlflow.log_text(known[TEXT], f"prompt/step-{step}.txt")
        mlflow.set_tag(TEXT, known[TEXT][:LONGEST_TAG])


def _track_by_log(package: str) -> Track:
    """For trackers whose `log` takes figures and texts alike, on the axis that Trainer's callback uses."""

    def track(known: Mapping[str, Any], step: int, changed: bool) -> None:
        said = {"prompt/text": known[TEXT]} if TEXT in known else {}
        import_module(package).log({**_figures(known), **said, "train/global_step": step})

    return track


TRACKERS: dict[str, Track] = {  # by the names that `TrainingArguments(report_to=...)` has for them
    "mlflow": track_with_mlflow,
    "wandb": _track_by_log("wandb"),
    "trackio": _track_by_log("trackio"),
}


def open_trackers(args: TrainingArguments) -> list[Track]:
    """One for each tracker in `report_to` that is known here.

    Args:
        args: of a Trainer that has begun to train.
    """
    wanted = args.report_to or ()
    beside: list[Track] = [TensorBoard(args)] if "tensorboard" in wanted else []
    return beside + [track for name, track in TRACKERS.items() if name in wanted]


def close_trackers(trackers: list[Track]) -> None:
    """Close what was opened here, and only that."""
    for track in trackers:
        if isinstance(track, TensorBoard):
            track.close()


def _figures(known: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in known.items() if isinstance(value, (int, float))}


def _logging_folder(args: TrainingArguments) -> Path:
    """Where Trainer's TensorBoard callback, which begins before ours, has just begun its file."""
    given = os.getenv("TENSORBOARD_LOGGING_DIR")
    if given is not None:
        return Path(given).expanduser()
    begun = [path for path in Path(str(args.output_dir)).rglob("events.out.tfevents.*") if path.parent.name != "prompt"]
    if begun:
        return max(begun, key=lambda path: path.stat().st_mtime_ns).parent
    return Path(str(args.output_dir)) / "runs"
