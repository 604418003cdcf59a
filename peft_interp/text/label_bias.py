"""The numbers that a prompt needs beside its text, one for each label word: a record that is stored and shown."""

from __future__ import annotations

import re
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
        chat: likewise; None for plain text.
        first_token: likewise, whether words of several tokens are scored by their first one.
        row_digests: of the rows they were estimated on (`peft_interp.text.rows.row_digest`), by which a measure knows
            that it is given these very rows; () for "content_free", and in files of an earlier version.

    Raises:
        ValueError: not one finite number for each word, or a calibration that does not exist.
    """

    words: tuple[str, ...]
    values: tuple[float, ...]
    calibration: str
    rows: int
    template: str
    chat: str | None = None
    first_token: bool = False
    row_digests: tuple[str, ...] = ()

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
    def of(cls, verbalizer: Any, values: Tensor, rows: Sequence[Mapping[str, Any]]) -> LabelBias:
        """The numbers, (labels,), as estimated with a `Verbalizer` on tokenised rows."""
        from peft_interp.text.rows import row_digest  # with torch, see `tensor`

        words, ways = tuple(word.strip() for word in verbalizer.label_words), verbalizer.calibration
        digests = () if ways == "content_free" else tuple(map(row_digest, rows))
        asked = (verbalizer.template, verbalizer.chat, verbalizer.first_token)
        return cls(words, tuple(values.tolist()), ways, len(rows), *asked, digests)

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
        later = {name: stored[name] for name in ("chat", "first_token", "row_digests") if name in stored}
        told = whole and all(isinstance(text, str) for text in texts) and all(map(_is_number, numbers))
        if not (told and _are_known(later, stored["rows"])):
            raise ValueError(
                "`label_bias` must hold `words`, as many numbers as `values`, `calibration`, `rows` and `template`; "
                "the file is damaged or not made by this library. Calibrate the prompt again."
            )
        known = (tuple(words or ()), tuple(float(value) for value in values or ()))
        later["row_digests"] = tuple(later.get("row_digests", ()))
        return cls(*known, stored["calibration"], stored["rows"], stored["template"], **later)

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def fits(self, verbalizer: Any) -> bool:
        """Whether they were estimated for a `Verbalizer`'s label words, and the model is asked for them as it was."""
        words = tuple(word.strip() for word in verbalizer.label_words)
        asked = (words, verbalizer.template, verbalizer.chat, verbalizer.first_token)
        return (self.words, self.template, self.chat, self.first_token) == asked

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


def asked_text(asked: Any) -> str:
    """How a `Verbalizer`, or what has its template, asks for which label words."""
    words = getattr(asked, "label_words", None) or asked.words
    chat = f" with `chat={asked.chat!r}`" if asked.chat else ""
    return f"the label words {list(words)} in {asked.template!r}{chat}{', by first tokens' * asked.first_token}"


def _are_known(later: Mapping[str, Any], rows: int) -> bool:
    """Whether what an earlier version did not store is of the right types, where it is stored."""
    digests = later.get("row_digests", [])
    return (
        isinstance(later.get("chat"), str | None)
        and isinstance(later.get("first_token", False), bool)
        and isinstance(digests, list)
        and len(digests) <= rows
        and all(isinstance(digest, str) and re.fullmatch("[0-9a-f]{12}", digest) for digest in digests)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
