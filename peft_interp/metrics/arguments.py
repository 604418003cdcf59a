"""What the measures are given: one text, several, a tokenizer. A slip between them is said, not measured."""

from __future__ import annotations

from typing import Any


def check_text(name: str, value: Any) -> None:
    """Refuse what is no text where one is wanted; None passes.

    Raises:
        ValueError: a list, ids, a model, ...
    """
    if value is not None and not isinstance(value, str):
        raise ValueError(
            f"`{name}` is a {type(value).__name__} and must be one text, a string; measure each of several by itself."
        )


def check_texts(name: str, value: Any) -> None:
    """Refuse a bare text where a list of them is wanted, since its characters would be taken for texts.

    Raises:
        ValueError: a string.
    """
    if isinstance(value, str):
        raise ValueError(f"`{name}={value!r}` is one text and must be a list of texts; write `{name}=[{value!r}]`.")


def check_tokenizer(tokenizer: Any) -> None:
    """Refuse what cannot tell ids as text.

    Raises:
        ValueError: a model, a name, None, ...
    """
    if not hasattr(tokenizer, "decode"):
        raise ValueError(
            f"`tokenizer` is a {type(tokenizer).__name__} and must be the model's own tokenizer; load it with "
            "`AutoTokenizer.from_pretrained(...)`."
        )
