"""Token ids and their text: tokenizing after a context, decoding, and whether a text comes back as the same ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

_REMEDY = "use those of the model's own tokenizer"
_END_OF_TEXT = "<|endoftext|>"  # what separates documents in the training of GPT-2 and many after it
_ANCHOR = "a"  # a letter to stand in front: alone, sentencepiece tokenizers add a blank to a text, or drop a token's


# -- text to ids ------------------------------------------------------------------------------------------------------


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of `text` at the beginning of an input, without special tokens."""
    return list(tokenizer.encode(text, add_special_tokens=False))


def encode_all(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """`encode` of many texts at once, of any length: no warning about the model's longest input."""
    return list(tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]) if len(texts) else []


def encode_after(tokenizer: PreTrainedTokenizerBase, text: str, preceding_text: str = _ANCHOR) -> list[int]:
    """Ids of `text` as it is tokenised after `preceding_text`, without special tokens.

    Raises:
        ValueError: the text's beginning melts into one token with what stands in front of it.
    """
    anchor, ids = encode(tokenizer, preceding_text), encode(tokenizer, preceding_text + text)
    if ids[: len(anchor)] != anchor:
        raise ValueError(f"{text!r} is tokenised together with the word in front of it; begin it with a blank.")
    return ids[len(anchor) :]


def encode_all_after(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int] | None]:
    """`encode_after` of many texts at once; None where a text melts into what stands in front of it."""
    anchor = encode(tokenizer, _ANCHOR)
    whole = encode_all(tokenizer, [_ANCHOR + text for text in texts])
    return [ids[len(anchor) :] if ids[: len(anchor)] == anchor else None for ids in whole]


# -- ids to text ------------------------------------------------------------------------------------------------------


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Text of `ids` at the beginning of an input, nothing tidied up."""
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def decode_after(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], preceding_text: str = _ANCHOR) -> str:
    """Text of `ids` as it reads after `preceding_text`, which is not returned: with the blank it begins with."""
    before = encode(tokenizer, preceding_text)
    head, whole = decode(tokenizer, before), decode(tokenizer, [*before, *ids])
    return whole[len(head) :] if whole.startswith(head) else decode(tokenizer, ids)


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """The text of each single token as it reads after other text: with its leading blank (" film", "ing", "</s>")."""
    if not len(ids):
        return []  # `batch_decode` makes one empty text of no ids
    anchor = encode(tokenizer, _ANCHOR)
    head = decode(tokenizer, anchor)
    whole = tokenizer.batch_decode([[*anchor, i] for i in ids], clean_up_tokenization_spaces=False)
    return [
        text[len(head) :] if text.startswith(head) else decode(tokenizer, [i])
        for i, text in zip(ids, whole, strict=True)
    ]


def vocabulary_texts(tokenizer: PreTrainedTokenizerBase, size: int) -> list[str]:
    """`token_texts` of the ids 0 to `size` - 1; "" for those that the tokenizer does not have."""
    known = sorted(i for i in tokenizer.get_vocab().values() if i < size)
    texts = [""] * size
    for i, text in zip(known, token_texts(tokenizer, known), strict=True):
        texts[i] = text
    return texts


# -- whether a text comes back as the same ids ------------------------------------------------------------------------


def survives(
    tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int], following_text: str = "", preceding_text: str = ""
) -> bool:
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
    before = encode(tokenizer, preceding_text) if preceding_text else []
    ids = [*before, *prompt_ids]
    text = preceding_text + decode_after(tokenizer, prompt_ids, preceding_text) if before else decode(tokenizer, ids)
    return encode(tokenizer, text + following_text)[: len(ids)] == ids


# -- special tokens ---------------------------------------------------------------------------------------------------


def ids_around_text(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Special tokens that the tokenizer puts in front of every text (BOS, say) and after it; empty for most."""
    plain, full = encode(tokenizer, _ANCHOR), list(tokenizer.encode(_ANCHOR))
    for start in range(len(full)):
        if full[start : start + len(plain)] == plain:
            return full[:start], full[start + len(plain) :]
    return [], full[len(plain) :]


def leading_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Special tokens that the tokenizer puts in front of every text (BOS, say); empty for most."""
    return ids_around_text(tokenizer)[0]


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer begins every text with its BOS."""
    return tokenizer.bos_token_id is not None and tokenizer(_ANCHOR)["input_ids"][0] == tokenizer.bos_token_id


def leading_token_ids(tokenizer: PreTrainedTokenizerBase, model_config: PreTrainedConfig | None = None) -> list[int]:
    """Ids that a text may begin with and that a prompt must not be put in front of: BOS and CLS.

    A BOS that opens the turns of a chat is none: a prompt after it would stand within the turn's name.

    Args:
        tokenizer: names both.
        model_config: a model's, which may name a BOS that its tokenizer does not.
    """
    named = {i for i in (tokenizer.bos_token_id, tokenizer.cls_token_id) if i is not None}
    found = {*named, *named_token_ids(model_config, ("bos",))}
    return sorted(found - {tokenizer.bos_token_id} if bos_opens_turns(tokenizer) else found)


def bos_opens_turns(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether BOS is what the chat template begins every turn with (SmolLM2's `<|im_start|>`), not every text."""
    template = getattr(tokenizer, "chat_template", None)
    if tokenizer.bos_token_id is None or not isinstance(template, str) or tokenizer.bos_token not in template:
        return False
    return not adds_bos(tokenizer)


def start_id(tokenizer: PreTrainedTokenizerBase, model_config: PreTrainedConfig | None) -> int | None:
    """The token that a text of no context is predicted from: BOS, else the end of another text; None without any."""
    chat = bos_opens_turns(tokenizer)
    starts = [] if chat else named_token_ids(model_config, ("bos",))
    if chat and _END_OF_TEXT in tokenizer.get_vocab():  # EOS ends a turn then, too
        starts = [tokenizer.get_vocab()[_END_OF_TEXT]]
    return next(iter(starts or named_token_ids(model_config, ("eos",))), None)


def named_token_ids(model_config: PreTrainedConfig | None, names: Iterable[str]) -> list[int]:
    """Ids that a model's config names: `named_token_ids(config, ("bos", "eos"))`; missing ones are left out.

    Those of its text part count as well, where a model reads more than text (`text_config` in Gemma 3, LLaVA, ...).
    """
    ids: set[int] = set()
    for config in text_configs(model_config):
        for name in names:
            ids.update(_whole_numbers(getattr(config, f"{name}_token_id", None)))
    return sorted(ids)


def config_token_ids(model_config: PreTrainedConfig | None) -> list[int]:
    """All ids >= 0 that a model's config gives a part to: `bos_token_id`, `image_token_index`, ..."""
    ids: set[int] = set()
    for config in text_configs(model_config):
        for name in vars(config):
            if name.lstrip("_").endswith(("_token_id", "_token_ids", "_token_index")):
                ids.update(_whole_numbers(getattr(config, name, None)))
    return sorted(i for i in ids if i >= 0)


def text_configs(model_config: PreTrainedConfig | None) -> list[PreTrainedConfig]:
    """A model's config and, where that is another, the one of its text part."""
    if model_config is None:
        return []
    text = model_config.get_text_config() if hasattr(model_config, "get_text_config") else model_config
    return [model_config] if text is model_config else [model_config, text]


def pad_token_id(model_config: PreTrainedConfig | None) -> int | None:
    """The id a model's config pads with, in its text part too; None where it names none, or one below 0."""
    named = named_token_ids(model_config, ("pad",))
    return named[0] if named and named[0] >= 0 else None


def _whole_numbers(value: Any) -> list[int]:
    values = value if isinstance(value, (list, tuple)) else [value]
    return [i for i in values if isinstance(i, int) and not isinstance(i, bool)]


# -- checks -----------------------------------------------------------------------------------------------------------


def as_ids(
    token_ids: Any, name: str, made_by: str = "`tokenizer.encode(text, add_special_tokens=False)` from a text"
) -> Tensor:
    """Token ids as a tensor, (ids,), wherever they lie.

    Raises:
        ValueError: text, fractions, a batch, or anything else that is no one list of ids; saying its `name`.
    """
    import torch

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


def check_tokenizer(tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Refuse what cannot tell ids as text.

    Raises:
        ValueError: a model, a name, None, ...
    """
    if not hasattr(tokenizer, "decode"):
        raise ValueError(
            f"`tokenizer` is a {type(tokenizer).__name__} and must be the model's own tokenizer; load it with "
            "`AutoTokenizer.from_pretrained(...)`."
        )
