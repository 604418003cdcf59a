"""Progress bars, which the switches of `datasets` and `transformers` turn off."""

from __future__ import annotations

import sys

from tqdm.auto import tqdm
from transformers.utils.logging import is_progress_bar_enabled


def progress_bar(total: int, description: str, shown: bool = True) -> tqdm:
    """A bar that closes with its `with` block.

    Args:
        total: steps.
        description: what is going on.
        shown: False for no bar; also none after `datasets.disable_progress_bars()` or transformers'
            `logging.disable_progress_bar()`.
    """
    datasets = sys.modules.get("datasets")  # not imported for this: who has not imported it has not turned bars off
    silent = not shown or not is_progress_bar_enabled() or (datasets and datasets.are_progress_bars_disabled())
    return tqdm(total=total, desc=description, disable=bool(silent), leave=False)
