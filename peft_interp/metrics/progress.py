"""One progress bar for all measures, silent where the user told Hugging Face's libraries to be."""

from __future__ import annotations

import datasets
from tqdm.auto import tqdm
from transformers.utils import logging


def progress_bar(total: int, description: str, shown: bool = True) -> tqdm:
    """A bar that closes with its `with` block.

    Args:
        total: steps.
        description: what is going on.
        shown: False for no bar; also none after `datasets.disable_progress_bars()` or transformers'
            `logging.disable_progress_bar()`.
    """
    silent = not shown or datasets.are_progress_bars_disabled() or not logging.is_progress_bar_enabled()
    return tqdm(total=total, desc=description, disable=silent, leave=False)
