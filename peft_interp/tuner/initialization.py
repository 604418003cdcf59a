"""Where a prompt's latent starts: at a text, at words, at random allowed tokens, or at random vectors."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftConfig, PromptTuningInit
from torch import Tensor

from peft_interp.embedded import resolve
from peft_interp.text.placement import Placement
from peft_interp.text.tokenization import encode_after

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from peft_interp.tuner.config import InterpPromptConfig


_NO_CODE = {"trust_remote_code": False}  # unset, it would ask on standard input
_NOT_A_FILES = ("cache_dir", "token", "proxies", "local_files_only", "force_download", "vocab_file", "tokenizer_file")


def load_tokenizer(config: InterpPromptConfig, required: bool) -> PreTrainedTokenizerBase | None:
    """The base model's tokenizer, or another that the user named.

    A config that was read from a file does not decide who reads its ids: the tokenizer of the base model in memory
    does, and the one that the file names stands in only where that one cannot be loaded.

    Args:
        config: of the user's, `tokenizer_name_or_path`, else `base_model_name_or_path`; of a file, the base model in
            memory first. Loaded without running code.
        required: raise when none can be loaded; otherwise return None.

    Returns:
        The tokenizer or None.

    Raises:
        ValueError: `required` and nothing could be loaded.
    """
    from transformers import AutoTokenizer

    names, name, problem = tokenizer_names(config), None, None
    for name in names:
        named, place = name == config.tokenizer_name_or_path, resolve(name)
        try:
            options = tokenizer_options(config) if named else _NO_CODE
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(place, **options)
            if has_words(tokenizer):
                return tokenizer
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            problem = error
    if required or config.tokenizer_name_or_path:
        raise ValueError(
            f"no tokenizer could be loaded from {name!r}; set `tokenizer_name_or_path` to a hub name or a local folder."
        ) from problem
    return None


def tokenizer_names(config: InterpPromptConfig) -> list[str]:
    """What `load_tokenizer` tries, in order."""
    if config.from_file:
        names = [config.loaded_base, config.tokenizer_name_or_path, config.base_model_name_or_path]
    else:
        names = [config.tokenizer_name_or_path or config.base_model_name_or_path]
    return list(dict.fromkeys(filter(None, names)))


def tokenizer_options(config: InterpPromptConfig) -> dict[str, Any]:
    """`tokenizer_kwargs` without code; of a config from a file, also without what reads or writes elsewhere.

    Those that a user gives and that do not mention code are passed on as they are, as PEFT does.
    """
    options = dict(config.tokenizer_kwargs or {})
    if config.from_file:
        options = {name: value for name, value in options.items() if name not in _NOT_A_FILES}
    as_given = options and not config.from_file and "trust_remote_code" not in options
    return options if as_given else {**options, **_NO_CODE}


def named_tokenizer(config: PeftConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase | None:
    """The tokenizer that an adapter's config names, where it is not the one at hand and can be loaded."""
    from transformers import AutoTokenizer

    name = getattr(config, "tokenizer_name_or_path", None)
    if not name or name == getattr(tokenizer, "name_or_path", None):
        return None
    try:
        named: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, **_NO_CODE)
        return named
    except Exception:  # whatever a stranger's files make it raise: it decides nothing
        return None


def has_words(tokenizer: PreTrainedTokenizerBase) -> bool:
    """False for the shell that transformers makes from a model's config alone: special tokens, nothing else."""
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return any(token.strip("▁") for token, i in tokenizer.get_vocab().items() if i not in special)


def initial_ids(
    config: InterpPromptConfig, allowed: Tensor, tokenizer: PreTrainedTokenizerBase | None
) -> Tensor | None:
    """The tokens a prompt starts from.

    Args:
        config: which start is wanted. A missing `num_virtual_tokens` is filled in from the text.
        allowed: (vocabulary,) bool.
        tokenizer: needed for text and words.

    Returns:
        (prompt,) int64, or None for a start that is no tokens (RANDOM).

    Raises:
        ValueError: a text of another length where `init_text_fit` forbids it, or tokens that the filter forbids.
    """
    if config.init_words:
        assert tokenizer is not None
        ids = [i for word in config.init_words for i in encode_after(tokenizer, " " + word.strip())]
        config.num_virtual_tokens = config.num_virtual_tokens or len(ids)
        if len(ids) > config.num_virtual_tokens:
            raise ValueError(
                f"`init_words={config.init_words}` have {len(ids)} tokens, more than `num_virtual_tokens="
                f"{config.num_virtual_tokens}`; use fewer words or a longer prompt."
            )
        ids = _fit(ids, config.num_virtual_tokens, "repeat")
    elif config.prompt_tuning_init == PromptTuningInit.TEXT:
        ids = _encode(tokenizer, config.prompt_tuning_init_text or "", config.placement)
        config.num_virtual_tokens = config.num_virtual_tokens or len(ids)
        ids = _fit(ids, config.num_virtual_tokens, config.init_text_fit)
    elif config.prompt_tuning_init == PromptTuningInit.SAMPLE_VOCAB:
        choices = allowed.nonzero().flatten()
        return choices[torch.randint(len(choices), (config.num_virtual_tokens or 0,))]
    else:
        return None
    forbidden = [i for i in ids if i >= len(allowed) or (config.projects and not allowed[i])]
    if forbidden:
        texts = [_decode(tokenizer, i) for i in dict.fromkeys(forbidden)]
        raise ValueError(
            f"the initial text holds tokens {texts} that `allowed_tokens={config.allowed_tokens!r}` and the banned "
            "words and ids forbid; change the text or loosen the filter."
        )
    return torch.tensor(ids, dtype=torch.long)


def _encode(tokenizer: PreTrainedTokenizerBase | None, text: str, placement: Placement) -> list[int]:
    """Ids of an initial text."""
    assert tokenizer is not None
    ids = placement.encode_prompt(tokenizer, text)
    if not ids:
        raise ValueError(f"the initial text {text!r} has no tokens; give at least one word.")
    return ids


def _decode(tokenizer: PreTrainedTokenizerBase | None, token_id: int) -> str:
    assert tokenizer is not None
    return str(tokenizer.decode([token_id]))


def _fit(ids: list[int], length: int, how: str) -> list[int]:
    if len(ids) == length:
        return ids
    short = len(ids) < length
    if how == "warn":
        warnings.warn(
            f"the initial text has {len(ids)} tokens and the prompt `num_virtual_tokens={length}`: the text is "
            f"{'repeated' if short else 'cut'}. Set `num_virtual_tokens={len(ids)}` (or leave it out) to start from "
            f"the text as it is, or `init_text_fit={'repeat' if short else 'truncate'!r}` to keep quiet.",
            stacklevel=2,
        )
    if how in ("warn", "repeat" if short else "truncate"):
        return (ids * math.ceil(length / len(ids)))[:length]
    remedy = "init_text_fit='repeat'" if short else "init_text_fit='truncate'"
    raise ValueError(
        f"the initial text has {len(ids)} tokens but `num_virtual_tokens={length}`; set "
        f"`num_virtual_tokens={len(ids)}`, change the text, or say `{remedy}`."
    )
