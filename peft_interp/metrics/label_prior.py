"""What of a prompt's gain is only the label prior: accuracy of every side raw, and with its own prior taken away.

A soft prompt can gain most of its accuracy by making one label word likelier on every row. Numbers for the label words
do that without any prompt. So the gain that a prompt may claim is what is left beside *no prompt, calibrated*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from peft import PeftModel
from torch import Tensor

from peft_interp.inference.model_lock import locked
from peft_interp.inference.models import AnyModel, base_model_of
from peft_interp.inference.progress import progress_bar
from peft_interp.metrics.label_scores import (
    bias_of,
    calibration_rows,
    check_held_out,
    check_wanted,
    label_scores,
    prompt_contender,
)
from peft_interp.metrics.reading import read_prompt
from peft_interp.metrics.results import CalibratedSide, LabelPrior
from peft_interp.metrics.uncertainty import Estimate, RowValues
from peft_interp.text.label_bias import LabelBias
from peft_interp.text.label_prior import with_bias
from peft_interp.text.rows import Rows
from peft_interp.text.verbalizer import Verbalizer, right_answers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHARES, _DIFFERENCES = (0.0, 1.0), (-1.0, 1.0)


@locked
def measure_label_prior(
    model: AnyModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    verbalizer: Verbalizer,
    training_rows: Rows | None = None,
    text: str | None = None,
    adapter_name: str | None = None,
    batch_size: int = 32,
    progress: bool = True,
) -> LabelPrior:
    """Accuracy raw and calibrated of no prompt, of the prompt's text, and of the prompt as it acts, on the same rows.

    Args:
        model: a `PeftModel` with a prompt adapter of a causal LM, ours or stock; with `text`, the base model.
        tokenizer: the base model's.
        rows: test rows as `Verbalizer.encode_dataset` makes them.
        verbalizer: template, label words, and which calibration.
        training_rows: other rows, on which each side's prior is estimated; None for "content_free".
        text: a prompt that is a text and no adapter.
        adapter_name: None for the active one.
        batch_size: rows at a time; it changes no result.
        progress: show a bar.

    Returns:
        All sides. The model, its modes and the active adapter are left as they were.

    Raises:
        ValueError: what `calibrate` refuses, or calibration rows that are the rows measured.
    """
    check_wanted(verbalizer)
    given = calibration_rows(tokenizer, training_rows, verbalizer)
    check_held_out(given, rows)
    sides: dict[str, str | None] = {"without": "", "as_prompt": text}
    if text is None:
        reading = read_prompt(cast(PeftModel, model), tokenizer, adapter_name, neighbours=1)
        sides |= {} if reading.discrete else {"as_text": reading.text}
    ask = (verbalizer, adapter_name, batch_size)
    found: dict[str, _Side] = {}
    with progress_bar(len(sides) * (len(given) + len(rows)), "Calibrating the label words", progress) as bar:
        for name, words in sides.items():
            own = base_model_of(model) if words is not None else model
            bias = bias_of(prompt_contender(own, tokenizer, given, words, *ask), given, verbalizer, bar)
            contender = prompt_contender(own, tokenizer, rows, words, *ask)
            found[name] = _Side(bias, *label_scores(contender, bar))
    return _record(verbalizer, found)


@dataclass(frozen=True)
class _Side:
    """A side's numbers; (rows, labels) scores of the rows at the places `kept`, and (rows,) which label is right."""

    bias: LabelBias
    scores: Tensor
    gold: Tensor
    kept: list[int]

    def hits(self, calibrated: bool, rows: Sequence[int]) -> RowValues:
        """Which of these rows are right."""
        scores = with_bias(self.scores, self.bias.tensor()) if calibrated else self.scores
        right = dict(zip(self.kept, right_answers(scores, self.gold).tolist(), strict=True))
        values = RowValues()
        values.add(rows, [right[row] for row in rows])
        return values


def _record(verbalizer: Verbalizer, sides: dict[str, _Side]) -> LabelPrior:
    """On the rows whose answer every side predicts.

    Raises:
        ValueError: there is none.
    """
    rows = sorted(set.intersection(*(set(side.kept) for side in sides.values())))
    if not rows:
        raise ValueError("no row has an answer that is predicted with the prompt and without; see the template.")
    raw = {name: side.hits(False, rows) for name, side in sides.items()}
    calibrated = {name: side.hits(True, rows) for name, side in sides.items()}
    told = {
        name: CalibratedSide(
            _known(raw[name].estimate(_SHARES)), _known(calibrated[name].estimate(_SHARES)), side.bias.values
        )
        for name, side in sides.items()
    }
    return LabelPrior(
        words=tuple(word.strip() for word in verbalizer.label_words),
        calibration=verbalizer.calibration,
        calibration_rows=sides["as_prompt"].bias.rows,
        rows=len(rows),
        without=told["without"],
        as_text=told.get("as_text"),
        as_prompt=told["as_prompt"],
        gain=_known(raw["as_prompt"].minus(raw["without"], _DIFFERENCES)),
        prior=_known(calibrated["without"].minus(raw["without"], _DIFFERENCES)),
        beyond=_known(calibrated["as_prompt"].minus(calibrated["without"], _DIFFERENCES)),
    )


def _known(estimate: Estimate | None) -> Estimate:
    assert estimate is not None  # there are rows
    return estimate
