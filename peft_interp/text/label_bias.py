"""The numbers that a prompt needs beside its text, one for each label word: a record that is stored and shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

CALIBRATIONS = ("none", "batch", "content_free", "fitted")  # how they are estimated: `peft_interp.text.label_prior`
MOST_BIAS = 1000.0  # nats, either way; fp32 tells nothing apart beyond


def check_calibration(calibration: Any) -> None:
    """Whether there is a calibration of this name.

    Raises:
        ValueError: another one.
    """
    if calibration not in CALIBRATIONS:
        raise ValueError(f"`calibration={calibration!r}` is unknown; use one of {', '.join(CALIBRATIONS)}.")


@dataclass(frozen=True)
class LabelBias:
    """The numbers that a prompt needs beside its text: what is added to each label word's log-probability.

    Attributes:
        words: the label words, in the order of their labels.
        values: one for each word, nats.
        calibration: how they were estimated: "batch", "content_free" or "fitted".
        rows: rows they were estimated on; texts for "content_free".
        template: the verbalizer's, with which they were estimated.

    Raises:
        ValueError: not one finite number for each word, or a calibration that does not exist.
    """

    words: tuple[str, ...]
    values: tuple[float, ...]
    calibration: str
    rows: int
    template: str

    def __post_init__(self) -> None:
        if len(self.values) != len(self.words) or len(self.words) < 2:
            raise ValueError(
                f"a label bias has {len(self.values)} numbers for the label words {list(self.words)}; it must have one "
                "for each of at least two words. Calibrate the prompt again."
            )
        if not all(abs(value) <= MOST_BIAS for value in self.values):  # NaN too
            raise ValueError(
                f"a label bias has the numbers {list(self.values)}; they must be finite and from {-MOST_BIAS:g} to "
                f"{MOST_BIAS:g} nats. Calibrate the prompt again."
            )
        if self.calibration not in CALIBRATIONS[1:]:
            raise ValueError(
                f"a label bias says `calibration={self.calibration!r}`; it must be one of "
                f"{', '.join(CALIBRATIONS[1:])}. Calibrate the prompt again."
            )

    @classmethod
    def of(cls, verbalizer: Any, values: Tensor, rows: int) -> LabelBias:
        """The numbers, (labels,), as estimated with a `Verbalizer`."""
        words = tuple(word.strip() for word in verbalizer.label_words)
        return cls(words, tuple(values.tolist()), verbalizer.calibration, rows, verbalizer.template)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> LabelBias:
        """What `to_dict` made, checked; other keys are passed over.

        Raises:
            ValueError: something is missing, of another type, or not allowed.
        """
        words, values = stored.get("words"), stored.get("values")
        texts = [stored.get("calibration"), stored.get("template"), *(words if isinstance(words, list) else [None])]
        numbers = values if isinstance(values, list) else [None]
        whole = isinstance(stored.get("rows"), int) and 0 <= stored["rows"] < 2**63
        if not (whole and all(isinstance(text, str) for text in texts) and all(map(_is_number, numbers))):
            raise ValueError(
                "`label_bias` must hold `words`, as many numbers as `values`, `calibration`, `rows` and `template`; "
                "the file is damaged or not made by this library. Calibrate the prompt again."
            )
        known = (tuple(words or ()), tuple(float(value) for value in values or ()))
        return cls(*known, stored["calibration"], stored["rows"], stored["template"])

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def fits(self, verbalizer: Any) -> bool:
        """Whether they were estimated for a `Verbalizer`'s label words in its template."""
        words = tuple(word.strip() for word in verbalizer.label_words)
        return (self.words, self.template) == (words, verbalizer.template)

    def tensor(self) -> Tensor:
        """(labels,) float64."""
        import torch  # the names above are for the command line's help, which has no time for it

        return torch.tensor(self.values, dtype=torch.float64)

    def sentence(self) -> str:
        """What a reader has to be told, without a full stop."""
        numbers = numbers_text(self.words, self.values)
        on = "texts without content" if self.calibration == "content_free" else "training rows"
        return (
            f"this prompt needs {len(self.words)} numbers besides its text, added to the label words' "
            f"log-probabilities: {numbers} (nats, {self.calibration} calibration on {self.rows} {on})"
        )


def numbers_text(words: Sequence[str], values: Sequence[float]) -> str:
    """ "terrible +0.52, great -0.52"."""
    return ", ".join(f"{word} {value:+.2f}" for word, value in zip(words, values, strict=True))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
