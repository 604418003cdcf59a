"""What a checkpoint of a search holds besides the adapter and the optimizer: its own state and the archive.

There is no random state: what a step draws depends on the seed and the step's number alone.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch

from peft_interp.scoring.archive import Archive
from peft_interp.scoring.scored_search import ScoredSearch
from peft_interp.storage.atomic import copy_file, replace_file

STATE_NAME = "prompt_search.pt"
ARCHIVE_NAME = "archive.jsonl"


def save_search(search: ScoredSearch, metrics: dict[str, list[float]], folder: str) -> None:
    """Write the search's state, with the metrics not logged yet, into a checkpoint."""
    state = io.BytesIO()
    torch.save({"search": search.state(), "metrics": metrics}, state)
    replace_file(Path(folder) / STATE_NAME, state.getvalue())
    search.write_archive()
    if search.archive_path is not None and search.archive_path.exists():
        copy_file(search.archive_path, Path(folder) / ARCHIVE_NAME)


def load_search(search: ScoredSearch, folder: str) -> dict[str, list[float]]:
    """Go back to a checkpoint; the archive's file becomes the checkpoint's, and another run's is put aside.

    Returns:
        The metrics that were not logged yet.

    Raises:
        ValueError: a checkpoint without a search's state.
    """
    path = Path(folder) / STATE_NAME
    if not path.exists():
        raise ValueError(
            f"{folder!r} has no {STATE_NAME}: it was saved by another trainer or with `save_only_model=True`, and the "
            "search cannot go on from it. Start anew from its adapter with `continue_training`."
        )
    saved = torch.load(path, map_location="cpu", weights_only=True)
    archive = Path(folder) / ARCHIVE_NAME
    search.archive = Archive.read(archive) if archive.exists() else Archive()
    search.load_state(saved["search"])
    if search.archive_path is not None:
        if not _same_run(search.archive_path, archive):
            put_archive_aside(search.archive_path)
        if archive.exists():
            copy_file(archive, search.archive_path)
        else:
            search.archive_path.unlink(missing_ok=True)
    metrics: dict[str, list[float]] = saved["metrics"]
    return metrics


def _same_run(path: Path, checkpoint: Path) -> bool:
    """Whether one archive begins with the other, which is not empty: what the shorter lacks is scored again."""
    if not path.exists() or not checkpoint.exists():
        return not path.exists()
    first, second = sorted((path.read_bytes(), checkpoint.read_bytes()), key=len)
    return bool(first) and second.startswith(first)


def put_archive_aside(path: Path) -> None:
    """Keep an earlier run's archive under another name: `archive-1.jsonl`, say."""
    if not path.exists():
        return
    number = 1
    while (aside := path.with_stem(f"{path.stem}-{number}")).exists():
        number += 1
    path.rename(aside)
