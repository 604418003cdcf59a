"""Which tokens of a vocabulary a prompt may use, and a fingerprint of the embedding table it was made for."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from peft_interp.text.tokenization import encode_all, encode_all_after, vocabulary_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LINE_END = "\n"
TOKEN_FILTERS = ("all", "printable", "ascii", "lines", "words")


_FINGERPRINT_ROWS = 16
_MOST_PADDING = 4096  # rows
_SAME_ROW = 1e-3  # of the norm; transformers pads with the mean and a little noise
_MOST_KNOWN = 4
_known_texts: dict[tuple[str, int, str] | None, tuple[list[str], list[bool]]] = {}  # by tokenizer, size and kind


def allowed_tokens(
    table: Tensor,
    tokenizer: PreTrainedTokenizerBase | None = None,
    kind: str = "all",
    banned_token_ids: Iterable[int] = (),
    banned_words: Sequence[str] = (),
    special_token_ids: Iterable[int] = (),
) -> Tensor:
    """Mask of the tokens a prompt may use.

    Special, added, unused (no such id in the tokenizer) and zero-norm rows are never allowed.

    Args:
        table: embedding table, (vocabulary, dim).
        tokenizer: the model's tokenizer; needed for every `kind` but "all" and for `banned_words`.
        kind: "all"; "printable": printable text that encodes back to the same token; "ascii": printable ASCII;
            "lines": that and line ends; "words": a blank and ASCII letters, a word or its beginning.
        banned_token_ids: ids never to use.
        banned_words: words never to use, with and without a leading blank, in lower case, upper case and capitalised
            (the label words, say). Every token whose text is such a word is banned.
        special_token_ids: ids that the model's config names, never used either. Some configs name ids that their table
            has no row for (-1 for no padding): these are passed over.

    Returns:
        (vocabulary,) bool on the CPU.

    Raises:
        ValueError: unknown kind, tokenizer missing, banned id outside the table, or nothing left to choose from.
    """
    if kind not in TOKEN_FILTERS:
        raise ValueError(f"`allowed_tokens={kind!r}` is unknown; use one of {', '.join(TOKEN_FILTERS)}.")
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
    mask[[i for i in special_token_ids if 0 <= i < size]] = False
    if tokenizer is not None:
        special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        usable = set(tokenizer.get_vocab().values()) - special  # a vocabulary may have holes
        mask[[i for i in range(size) if i not in usable]] = False
        if kind != "all" or banned_words:
            mask &= _text_mask(tokenizer, size, kind, banned_words)
    else:
        mask[size - unused_tail(table) :] = False
    if not mask.any():
        raise ValueError(
            f"no token is left: `allowed_tokens={kind!r}` with {len(banned_ids)} banned ids and "
            f"`banned_words={list(banned_words)}` excludes all {size} rows; loosen the filter."
        )
    return mask


def unused_tail(table: Tensor) -> int:
    """Rows at the end that stand for no token: padding, as tables are made longer to fit a machine.

    Without a tokenizer nothing says which they are. Padding is filled with one row over and over, with zeros or with
    the mean of all rows; rows of that kind at the end are counted. Rows filled at random look like any other.

    Args:
        table: (vocabulary, dim).

    Returns:
        How many; 0 where only the last row is like itself.
    """
    table = table.detach()
    last = table[-1].float()
    far = torch.linalg.vector_norm(table[-_MOST_PADDING:].float() - last, dim=-1)  # (rows,)
    like = (far <= _SAME_ROW * last.norm()).flip(0)
    count = int(like.int().cumprod(0).sum())
    if count > 1 or not bool(last.any()):
        return count if count < len(like) else 0
    mean = table[:-1].float().mean(dim=0)
    return int(len(table) > 2 and bool((last - mean).norm() <= _SAME_ROW * mean.norm()))


def _text_mask(tokenizer: PreTrainedTokenizerBase, size: int, kind: str, banned_words: Sequence[str]) -> Tensor:
    banned = {word.strip().lower() for word in banned_words}
    texts, fits = _texts_that_fit(tokenizer, size, kind)
    if unknown := sorted(banned - {text.strip().lower() for text in texts}):
        warnings.warn(
            f"`banned_words` {unknown} are no single tokens of this tokenizer, so nothing is banned for them: a prompt "
            "can still spell them in pieces. Ban the pieces with `banned_token_ids`, or leave these words out.",
            stacklevel=2,
        )
    return torch.tensor([fit and text.strip().lower() not in banned for text, fit in zip(texts, fits, strict=True)])


def _texts_that_fit(tokenizer: PreTrainedTokenizerBase, size: int, kind: str) -> tuple[list[str], list[bool]]:
    """Every token's text, and whether it is of a kind and comes back as the same token; kept, as it takes seconds."""
    core = getattr(tokenizer, "backend_tokenizer", None)
    key = None if core is None else (hashlib.sha256(core.to_str().encode()).hexdigest(), size, kind)
    if key in _known_texts:
        return _known_texts[key]
    texts = vocabulary_texts(tokenizer, size)
    fits = [_fits(text, kind) for text in texts]
    if kind != "all":
        kept = [i for i in range(size) if fits[i]]
        shown = [texts[i] for i in kept]
        ways = zip(kept, encode_all(tokenizer, shown), encode_all_after(tokenizer, shown), strict=True)
        for i, first, second in ways:
            fits[i] = [i] in (first, second)
    if key is not None:
        while len(_known_texts) >= _MOST_KNOWN:
            _known_texts.pop(next(iter(_known_texts)), None)
        _known_texts[key] = texts, fits
    return texts, fits


def _fits(text: str, kind: str) -> bool:
    if kind == "all":
        return True
    if kind == "lines":  # some tokenizers have one token for a full stop and the end of the line
        return text == LINE_END or _fits(text.removesuffix(LINE_END), "ascii")
    if not text.strip() or not text.isprintable() or "\ufffd" in text:
        return False
    if kind == "ascii":
        return text.isascii()
    if kind == "words":
        return text.startswith(" ") and text[1:].isalpha() and text.isascii()
    return True


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
    if len(first) != len(second):
        return False
    return list(first[:2]) == list(second[:2]) and all(
        abs(a - b) <= 0.01 * max(abs(a), abs(b), 1e-9) for a, b in zip(first[2:], second[2:], strict=True)
    )
