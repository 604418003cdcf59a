"""Token ids and their text: tokenizing after a context, decoding, and whether a text comes back as the same ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from reprlib import repr as shortened
from typing import Any

import torch
from torch import Tensor

_REMEDY = "use those of the model's own tokenizer"


def as_ids(
    token_ids: Any, name: str, made_by: str = "`tokenizer.encode(text, add_special_tokens=False)` from a text"
) -> Tensor:
    """Token ids as a tensor, (ids,), wherever they lie.

    Raises:
        ValueError: text, fractions, a batch, or anything else that is no one list of ids; saying its `name`.
    """
    try:
        ids = torch.as_tensor(token_ids)
    except (TypeError, ValueError, RuntimeError):
        ids = torch.tensor(torch.nan)
    if ids.dim() != 1 or (len(ids) and (ids.is_floating_point() or ids.dtype == torch.bool)):
        shown = " ".join(shortened(token_ids).split())
        raise ValueError(f"`{name}={shown}` must be one list of token ids; it is made by {made_by}.")
    return ids.long()


def check_in_vocabulary(ids: Iterable[int], words: Any, what: str = "token ids", remedy: str = _REMEDY) -> None:
    """Refuse ids that a model's word embeddings have no row for; on a GPU they would end the process.

    Raises:
        ValueError: saying `what` they are and the `remedy`.
    """
    ids, size = list(ids), getattr(words, "num_embeddings", None) or words.weight.shape[0]
    if not all(0 <= i < size for i in ids):
        raise ValueError(f"the {what} {ids} do not fit a vocabulary of {size}; {remedy}.")


def token_texts(tokenizer: Any, size: int) -> list[str]:
    """The text of each single token, "" for ids the tokenizer does not have.

    A sentencepiece token's leading blank only shows after another token, so every token is decoded after a letter
    and the letter is cut off.
    """
    known = sorted(i for i in tokenizer.get_vocab().values() if i < size)
    anchor = tokenizer.encode("a", add_special_tokens=False)
    prefix = tokenizer.decode(anchor)
    batch = [[*anchor, i] for i in known]
    texts = [""] * size
    for i, text in zip(known, tokenizer.batch_decode(batch, clean_up_tokenization_spaces=False), strict=True):
        texts[i] = text[len(prefix) :]
    return texts


def named_token_ids(model_config: Any, names: Iterable[str]) -> list[int]:
    """Ids that a model's config names: `named_token_ids(config, ("bos", "eos"))`; missing ones are left out."""
    ids: set[int] = set()
    for name in names:
        value = getattr(model_config, f"{name}_token_id", None)
        ids.update(value if isinstance(value, (list, tuple)) else [] if value is None else [value])
    return sorted(ids)


def leading_token_ids(tokenizer: Any) -> list[int]:
    """Ids that a text may begin with and that a prompt must not be put in front of: BOS and CLS."""
    return sorted({i for i in (tokenizer.bos_token_id, tokenizer.cls_token_id) if i is not None})


def decode_after(tokenizer: Any, ids: Sequence[int], preceding_text: str = "a") -> str:
    """Text of `ids` as it reads after `preceding_text`, which is not returned.

    Alone, sentencepiece tokenizers would drop the blank that a first token begins with.
    """
    before = tokenizer.encode(preceding_text, add_special_tokens=False)
    whole = tokenizer.decode([*before, *ids], clean_up_tokenization_spaces=False)
    return str(whole[len(tokenizer.decode(before, clean_up_tokenization_spaces=False)) :])


def survives(tokenizer: Any, prompt_ids: Sequence[int], following_text: str = "", preceding_text: str = "") -> bool:
    """Whether the prompt's text, put between two other texts, is tokenised to the same prompt ids again.

    Args:
        tokenizer: the model's tokenizer.
        prompt_ids: ids of the prompt.
        following_text: the text that stands after the prompt, with its leading blank (" The film ..."). Decoding and
            encoding depend on the neighbours, so check with real inputs, not in isolation.
        preceding_text: the text in front of the prompt, for a prompt at the end. The prompt's own leading blank, if its
            first token has one, is put between the two; no other.

    Returns:
        True when decode -> encode gives the same ids in this place.
    """
    before = tokenizer.encode(preceding_text, add_special_tokens=False) if preceding_text else []
    ids = [*before, *prompt_ids]
    if before:
        text = preceding_text + decode_after(tokenizer, prompt_ids, preceding_text)
    else:
        text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    again = tokenizer.encode(text + following_text, add_special_tokens=False)
    return again[: len(ids)] == ids


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
