"""Notices a search that changes nothing, and says so once."""

from __future__ import annotations

import warnings

FIRST_MOVE = 30  # optimizer steps within which some token changes at any learning rate that will do


class StuckWatch:
    """Counts optimizer steps in which no token of the prompt changed.

    Args:
        patience: how many of them in a row are too many; until the first change no more than `FIRST_MOVE` are.
    """

    def __init__(self, patience: int) -> None:
        self.patience, self.unchanged, self._warned = patience, 0, False

    def see(self, changed: bool, steps: int) -> None:
        """Count a step, and warn if it is one too many.

        Args:
            changed: whether a token changed.
            steps: optimizer steps since the prompt was made.
        """
        self.unchanged = 0 if changed else self.unchanged + 1
        never = self.unchanged == steps
        if self._warned or self.unchanged < (min(FIRST_MOVE, self.patience) if never else self.patience):
            return
        self._warned = True
        warnings.warn(
            f"the prompt search is stuck: no token has changed for {self.unchanged} optimizer steps"
            f"{' since the start' if never else ''}. Raise the learning rate (PEZ uses 0.1 to 0.3; Trainer's default "
            "of 5e-5 moves nothing), start elsewhere, or lower `perplexity_weight`.",
            stacklevel=2,
        )
