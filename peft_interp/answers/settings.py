"""`AnswerSettings`: how the task model writes an answer, in the words of `generate`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class AnswerSettings:
    """How an answer is written, and when it ends.

    An answer ends with the model's end token, with a stop text, or after `max_new_tokens`. Nothing else of the model's
    generation config counts (penalties, say).

    Attributes:
        max_new_tokens: most tokens, >= 1.
        stop_strings: texts that end an answer, which keeps them: answers end where the first of them does.
        do_sample: draw every token; else the likeliest is taken.
        temperature: of drawing, > 0.
        top_k: draw among so many likeliest tokens; 0: all.
        top_p: draw in the smallest set of this probability, in (0, 1].
        seed: of drawing. What is drawn depends on the seed, the prompt and the row alone, so that runs can be resumed
            and shared among processes.

    Raises:
        ValueError: a value outside these ranges.
    """

    max_new_tokens: int = 16
    stop_strings: Sequence[str] = ()
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        texts = (self.stop_strings,) if isinstance(self.stop_strings, str) else tuple(self.stop_strings)
        object.__setattr__(self, "stop_strings", texts)
        if self.max_new_tokens < 1:
            raise ValueError(f"`max_new_tokens={self.max_new_tokens}` must be at least 1.")
        if not all(isinstance(text, str) and text for text in texts):
            raise ValueError(f"`stop_strings={texts!r}` must be texts that are not empty; leave out what is none.")
        if not self.temperature > 0 or not math.isfinite(self.temperature):
            raise ValueError(
                f"`temperature={self.temperature}` must be a finite number > 0; for the likeliest tokens use "
                "`do_sample=False`."
            )
        if self.top_k < 0:
            raise ValueError(f"`top_k={self.top_k}` must be >= 0; 0 draws among all tokens.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"`top_p={self.top_p}` must be in (0, 1]; 1 draws among all tokens.")
