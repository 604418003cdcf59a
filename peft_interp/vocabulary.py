"""Which tokens a prompt may use, whether its text survives re-tokenising, and which table a prompt was made for."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from reprlib import repr as shortened
from typing import Any

import torch
from torch import Tensor

KINDS = ("all", "printable", "ascii", "words")
_FINGERPRINT_ROWS = 16
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

    A sentencepiece token's leading blank only shows behind another token, so every token is decoded behind a letter
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


def allowed_tokens(
    table: Tensor,
    tokenizer: Any | None = None,
    kind: str = "all",
    banned_token_ids: Iterable[int] = (),
    banned_words: Sequence[str] = (),
) -> Tensor:
    """Mask of the tokens a prompt may use.

    Special, added, unused (no such id in the tokenizer) and zero-norm rows are never allowed.

    Args:
        table: embedding table, (vocabulary, dim).
        tokenizer: the model's tokenizer; needed for every `kind` but "all" and for `banned_words`.
        kind: "all"; "printable": printable text that encodes back to the same token; "ascii": printable ASCII;
            "words": a blank followed by ASCII letters, that is a word's beginning or a whole word.
        banned_token_ids: ids never to use.
        banned_words: words never to use, with and without a leading blank, in lower case, upper case and capitalised
            (the label words, say). Every token whose text is such a word is banned.

    Returns:
        (vocabulary,) bool on the CPU.

    Raises:
        ValueError: unknown kind, tokenizer missing, banned id outside the table, or nothing left to choose from.
    """
    if kind not in KINDS:
        raise ValueError(f"`allowed_tokens={kind!r}` is unknown; use one of {', '.join(KINDS)}.")
    if tokenizer is None and (kind != "all" or banned_words):
        raise ValueError(
            f"`allowed_tokens={kind!r}` and `banned_words={list(banned_words)}` need the tokenizer's texts; set "
            "`tokenizer_name_or_path` in the config (a hub name or a local folder)."
        )
    size = table.shape[0]
    mask = torch.linalg.vector_norm(table.detach(), ord=torch.inf, dim=-1).ne(0).cpu()  # (vocabulary,)
    banned_ids = set(banned_token_ids)
    if outside := sorted(i for i in banned_ids if not 0 <= i < size):
        raise ValueError(f"`banned_token_ids` {outside} are not in the vocabulary (0 to {size - 1}); remove them.")
    mask[list(banned_ids)] = False
    if tokenizer is not None:
        special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        usable = set(tokenizer.get_vocab().values()) - special  # a vocabulary may have holes
        mask[[i for i in range(size) if i not in usable]] = False
        if kind != "all" or banned_words:
            mask &= _text_mask(tokenizer, size, kind, banned_words)
    if not mask.any():
        raise ValueError(
            f"no token is left: `allowed_tokens={kind!r}` with {len(banned_ids)} banned ids and "
            f"`banned_words={list(banned_words)}` excludes all {size} rows; loosen the filter."
        )
    return mask


def _text_mask(tokenizer: Any, size: int, kind: str, banned_words: Sequence[str]) -> Tensor:
    banned = {word.strip().lower() for word in banned_words}
    texts = token_texts(tokenizer, size)
    if unknown := sorted(banned - {text.strip().lower() for text in texts}):
        warnings.warn(
            f"`banned_words` {unknown} are no single tokens of this tokenizer, so nothing is banned for them: a prompt "
            "can still spell them in pieces. Ban the pieces with `banned_token_ids`, or leave these words out.",
            stacklevel=2,
        )
    mask = torch.tensor([_fits(text, kind) and text.strip().lower() not in banned for text in texts])
    if kind == "all":
        return mask
    kept = mask.nonzero().flatten().tolist()
    anchor = tokenizer.encode("a", add_special_tokens=False)
    alone = tokenizer([texts[i] for i in kept], add_special_tokens=False)["input_ids"]
    behind = tokenizer(["a" + texts[i] for i in kept], add_special_tokens=False)["input_ids"]
    for i, first, second in zip(kept, alone, behind, strict=True):
        mask[i] = first == [i] or second == [*anchor, i]
    return mask


def _fits(text: str, kind: str) -> bool:
    if kind == "all":
        return True
    if not text.strip() or not text.isprintable() or "\ufffd" in text:
        return False
    if kind == "ascii":
        return text.isascii()
    if kind == "words":
        return text.startswith(" ") and text[1:].isalpha() and text.isascii()
    return True


def decode_behind(tokenizer: Any, ids: Sequence[int], preceding_text: str = "a") -> str:
    """Text of `ids` as it reads behind `preceding_text`, which is not returned.

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
        following_text: the text that stands behind the prompt, with its leading blank (" The film ..."). Decoding and
            encoding depend on the neighbours, so check with real inputs, not in isolation.
        preceding_text: the text in front of the prompt, for a prompt at the end. The prompt's own leading blank, if its
            first token has one, is put between the two; no other.

    Returns:
        True when decode -> encode gives the same ids in this place.
    """
    before = tokenizer.encode(preceding_text, add_special_tokens=False) if preceding_text else []
    ids = [*before, *prompt_ids]
    if before:
        text = preceding_text + decode_behind(tokenizer, prompt_ids, preceding_text)
    else:
        text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    again = tokenizer.encode(text + following_text, add_special_tokens=False)
    return again[: len(ids)] == ids


def table_fingerprint(table: Tensor) -> list[float]:
    """A short description of an embedding table that survives casts between float formats.

    Args:
        table: (vocabulary, dim).

    Returns:
        Vocabulary size, dim, then the norms of 16 evenly spaced rows.
    """
    rows = torch.linspace(0, table.shape[0] - 1, _FINGERPRINT_ROWS).long().to(table.device)
    norms = table.detach()[rows].float().norm(dim=-1)
    return [float(table.shape[0]), float(table.shape[1]), *(round(x, 6) for x in norms.tolist())]


def same_table(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether two fingerprints describe tables of one shape with the same norms, up to rounding in bf16 (1%)."""
    return list(first[:2]) == list(second[:2]) and all(
        abs(a - b) <= 0.01 * max(abs(a), abs(b), 1e-9) for a, b in zip(first[2:], second[2:], strict=True)
    )
