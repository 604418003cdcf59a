"""One score from several measures, with coefficients that were fitted and checked on human ratings and human text.

score = 1 / (1 + exp(-z)), z = intercept - sum of coefficient * fault, with three faults that are all 0 for good text:

* `nll_position`: where the NLL lies between human-written prompts (0) and the same prompts shuffled (1), under the
  model that judges, at the prompt's length; cut to -0.5 to 2;
* `unknown_words`: 1 - share of words in a dictionary; 0 for texts in other languages than English;
* `repetition`: share of tokens that repeat an earlier one.

What the numbers mean: a logistic model fitted to targets from 0 (prompts made unreadable) to 1 (prompts people wrote),
rated sentences in between. `threshold` is the score that 95% of held-out human-written text reaches. The score tells
text from word salad; it does not tell good style from poor, nor sense from nonsense in fluent words: among sentences
that are all more or less acceptable neither it nor any single measure ranks as people do. All rates and correlations,
with intervals, stand in `examples/calibration/README.md`.

The coefficients are `data/readability.json`, written by `examples/calibration/calibrate.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

COEFFICIENTS = Path(__file__).parent / "data" / "readability.json"
FAULTS = ("nll_position", "unknown_words", "repetition")
POSITION_RANGE = (-0.5, 2.0)


@dataclass(frozen=True)
class Calibration:
    """The fitted score.

    Attributes:
        intercept: log-odds of a text without a fault.
        coefficients: for each of `FAULTS`, >= 0.
        threshold: the score, 0 to 1, from which on a text counts as readable.
        provenance: script, data, date and the rule for the threshold.
    """

    intercept: float
    coefficients: dict[str, float]
    threshold: float
    provenance: dict[str, Any]

    def score(self, faults: Mapping[str, float]) -> float:
        """The composite, 0 (unreadable) to 1; NaN where a fault is NaN."""
        z = self.intercept - sum(self.coefficients[name] * faults[name] for name in FAULTS)
        return 1 / (1 + math.exp(-z))


@cache
def calibration() -> Calibration:
    """The published coefficients."""
    return Calibration(**json.loads(COEFFICIENTS.read_text(encoding="utf-8")))


def faults_of(measures: Mapping[str, float], english: bool = True) -> dict[str, float]:
    """The composite's inputs.

    Args:
        measures: `nll_position`, `dictionary_share` and `repetition`.
        english: False where the words are of another language and cannot be looked up.

    Returns:
        By `FAULTS`; `nll_position` is NaN where it could not be measured.
    """
    known, position = measures["dictionary_share"], measures["nll_position"]
    low, high = POSITION_RANGE
    return {
        "nll_position": position if math.isnan(position) else min(max(position, low), high),
        "unknown_words": 1 - known if english and not math.isnan(known) else 0.0,
        "repetition": measures["repetition"],
    }
