"""What a saved prompt must look like: one check of config and tensors, before anything is built or allocated.

Files come from strangers. Everything here reads plain values and shapes; nothing is loaded by name.
"""

from __future__ import annotations

import hashlib
import json
import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import fields
from enum import Enum
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from peft_interp.text.label_bias import LabelBias

MOST_TOKENS = 100_000  # of a prompt; a vector of each is made before anything is read
SAME_ROW = 0.01  # how far a vector may be from its row, as a share of its norm; as for the table's fingerprint
_REMEDY = "the file is damaged or not made by this library; ask for it anew or save the adapter again"
_EMBEDDINGS, _LATENT = "prompt_embeddings", "prompt_latent"
# name: whole numbers or not, dimensions
TENSORS = {
    _EMBEDDINGS: (False, 2),
    _LATENT: (False, 2),
    "prompt_ids": (True, 1),
    "best_prompt_ids": (True, 1),
    "best_prompt_score": (False, 0),
    "prompt_step": (True, 0),
    "prompt_perplexity_weight": (False, 0),
    "prompt_latent_unit": (False, 0),
}
# adapters saved before `target_perplexity` do not have the first, those in the table's own unit not the second
OPTIONAL = ("prompt_perplexity_weight", "prompt_latent_unit")
OVERWRITTEN = "_peft_interp_overwritten"  # on a model: by adapter, base tensors that a file of stock PEFT's replaced
_STOCK = (_EMBEDDINGS, "prefix_task_cols", "prefix_task_rows")  # of PEFT's own prompt methods


# -- the config -------------------------------------------------------------------------------------------------------


def check_config(config: Mapping[str, Any], kind: type) -> None:
    """Whether the values of a prompt's `adapter_config.json` are of the types that its class has.

    Args:
        config: the file's content; keys that the class does not have are PEFT's business.
        kind: the config's class, `InterpPromptConfig` say.

    Raises:
        ValueError: naming the setting, its value and what it must be.
    """
    hints, known = _hints(kind), {field.name: field.default for field in fields(kind)}
    for name in known.keys() & config.keys():
        value = config[name]
        if not (conforms(value, hints[name]) or (value is None and known[name] is None)):
            raise ValueError(f"`{name}={_short(value)}` of the saved config must be {_words(hints[name])}; {_REMEDY}.")
    length = config.get("num_virtual_tokens")
    if not isinstance(length, int) or not 1 <= length <= MOST_TOKENS:
        raise ValueError(f"`num_virtual_tokens={_short(length)}` of the saved config must be 1 to {MOST_TOKENS:,}.")
    if config.get("num_transformer_submodules") not in (None, 1, 2):
        found = _short(config["num_transformer_submodules"])
        raise ValueError(f"`num_transformer_submodules={found}` of the saved config must be 1 or 2; {_REMEDY}.")
    for name in ("leading_token_ids", "special_token_ids", "banned_token_ids"):
        if any(not 0 <= i < 2**31 for i in config.get(name) or ()):
            raise ValueError(f"`{name}={_short(config[name])}` of the saved config must be token ids; {_REMEDY}.")
    fingerprint = config.get("table_fingerprint")
    if fingerprint is not None and len(fingerprint) < 2:
        raise ValueError(f"`table_fingerprint={_short(fingerprint)}` of the saved config is too short; {_REMEDY}.")
    _check_found_by(config.get("found_by") or {})
    _check_label_bias(config.get("label_bias"))


def _check_found_by(found_by: Mapping[str, Any]) -> None:
    """How a search found the prompt, which the card tells."""
    wanted: dict[str, Any] = {"trainer": str, "steps": int, "prompts_scored": int, "chosen_by": str}
    wanted |= {"rewards": dict[str, float], "settings": dict[str, str | int | float | bool | list | None]}
    for name in wanted.keys() & found_by.keys():
        if not conforms(found_by[name], wanted[name]):
            found = _short(found_by[name])
            raise ValueError(
                f"`found_by[{name!r}]={found}` of the saved config is nothing a trainer writes; {_REMEDY}."
            )


def _check_label_bias(stored: Mapping[str, Any] | None) -> None:
    """The numbers that the prompt needs beside its text."""
    if stored is None:
        return
    if not isinstance(stored.get("prompt"), str):
        raise ValueError(f"`label_bias` of the saved config does not say of which prompt it is; {_REMEDY}.")
    LabelBias.from_dict(stored)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def conforms(value: Any, hint: Any) -> bool:
    """Whether a value that JSON can hold is of a type: plain ones, lists, dictionaries, enumerations, and unions."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(conforms(value, argument) for argument in arguments)
    if hint is types.NoneType or hint is None:
        return value is None
    if origin in (list, tuple):
        return isinstance(value, list) and all(conforms(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(conforms(item, arguments[1]) for item in value.values())
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    if isinstance(hint, type) and issubclass(hint, Enum):
        return isinstance(value, hint) or value in [member.value for member in hint]
    return isinstance(value, hint)


def _words(hint: Any) -> str:
    """A type for people."""
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_words(argument) for argument in get_args(hint)))
    plain = {float: "a number", int: "a whole number", str: "text", bool: "true or false", types.NoneType: "null"}
    if get_origin(hint) is list:
        return f"a list, each {_words(get_args(hint)[0])}"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "one of " + ", ".join(str(member.value) for member in hint)
    return plain.get(hint, "an object" if hint is dict or get_origin(hint) is dict else str(hint))


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def digest_of(ids: list[int], vectors: Tensor | None) -> str:
    """Recognises a prompt, so that a report of another one is not shown beside it.

    Args:
        ids: its tokens, which are all there is to a prompt of tokens.
        vectors: (prompt, dim) for a soft prompt, whose tokens are only the nearest ones; else None.
    """
    content = json.dumps(ids).encode()
    if vectors is not None:
        content += vectors.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


# -- the tensors ------------------------------------------------------------------------------------------------------


def check_tensors(tensors: Mapping[str, Tensor], length: int | None = None, projects: bool = True) -> None:
    """Whether a prompt's tensors are all there, of the right kind, and agree with each other.

    Args:
        tensors: by name; those of trained modules beside them are passed over.
        length: tokens of the prompt; None: as many as there are ids.
        projects: whether the prompt consists of tokens, of which equal ones have equal rows.

    Raises:
        ValueError: a tensor is missing, has other dimensions or kind, is not finite, or contradicts another.
    """
    for name, (whole, dimensions) in TENSORS.items():
        if name not in tensors:
            if name in OPTIONAL:
                continue
            raise ValueError(
                f"the checkpoint has no tensor {name!r} (it has {_short(sorted(tensors))}); it is incomplete or not an "
                "InterpPromptConfig adapter. Save it again or load it with its own config."
            )
        tensor = tensors[name]
        kind = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
        if kind != whole or tensor.is_complex() or tensor.dim() != dimensions:
            raise ValueError(
                f"tensor {name!r} is {tensor.dtype} of shape {tuple(tensor.shape)} and must hold "
                f"{'whole numbers' if whole else 'numbers'} in {dimensions} dimensions; {_REMEDY}."
            )
        if not whole and name != "best_prompt_score" and not torch.isfinite(tensor).all():
            raise ValueError(f"tensor {name!r} holds NaN or infinity; ask for another checkpoint.")
    ids = tensors["prompt_ids"]
    for name in (_EMBEDDINGS, _LATENT, "best_prompt_ids"):
        wanted = len(ids) if length is None else length
        if len(tensors[name]) != wanted or len(ids) != wanted:
            raise ValueError(
                f"tensor {name!r} has shape {tuple(tensors[name].shape)} beside {len(ids)} ids, this prompt needs "
                f"{wanted} rows; use the `num_virtual_tokens` and base model of the checkpoint."
            )
    if not len(ids) or int(ids.min()) < 0:
        raise ValueError(f"'prompt_ids' are {_short(ids.tolist())} and must be token ids from 0; {_REMEDY}.")
    if projects:
        _check_equal_rows(ids, tensors[_EMBEDDINGS])


def _check_equal_rows(ids: Tensor, rows: Tensor) -> None:
    """The same token has the same row wherever it stands."""
    values, places = ids.unique(return_inverse=True)
    first = torch.full((len(values),), len(ids)).scatter_reduce(0, places, torch.arange(len(ids)), "amin")
    if not torch.equal(rows, rows[first[places]]):
        raise ValueError(f"{_EMBEDDINGS!r} has different rows for the same token of 'prompt_ids'; {_REMEDY}.")


def check_vectors(tensors: Mapping[str, Tensor], made: Tensor) -> None:
    """Whether the vectors that plain PEFT would read are those of the ids in the base model's table.

    Args:
        tensors: of the checkpoint, checked by `check_tensors`.
        made: (prompt, dim) what the base model's embedding makes of the ids.

    Raises:
        ValueError: they differ by more than the precision that either is stored in.
    """
    saved = tensors[_EMBEDDINGS]
    if not saved.is_floating_point():
        raise ValueError(f"{_EMBEDDINGS!r} is {saved.dtype} and must hold numbers with a fraction; {_REMEDY}.")
    if saved.shape != made.shape:
        return  # another base model; `check_state` and the table's fingerprint say so
    coarse = max(2 * torch.finfo(saved.dtype).eps, 2 * torch.finfo(made.dtype).eps, SAME_ROW)
    saved, made = saved.double().cpu(), made.detach().double().cpu()
    away = (saved - made).norm(dim=-1) / made.norm(dim=-1).clamp_min(1e-12)
    if bool((away > coarse).any()):
        wrong = tensors["prompt_ids"][away.argmax().item()].item()
        raise ValueError(
            f"{_EMBEDDINGS!r}, which plain PEFT would read, are not the rows of 'prompt_ids' in the base model's table "
            f"(token {wrong} is {away.max():.1%} away): the file says one prompt and holds another. Ask for another "
            "checkpoint, or load the base model that it was trained on."
        )


def check_names(tensors: Mapping[str, Any], modules_to_save: Any, ours: bool = True) -> None:
    """Refuse tensors that belong neither to the prompt nor to a module that the config declares.

    Args:
        tensors: by the names that they have in the file.
        modules_to_save: what the config declares.
        ours: an InterpPrompt adapter, else a prompt of PEFT's own.

    Raises:
        ValueError: they would overwrite the base model.
    """
    if foreign := foreign_names(tensors, modules_to_save, ours):
        raise ValueError(foreign_words(foreign))


def foreign_names(names: Iterable[str], modules_to_save: Any, ours: bool = True) -> list[str]:
    """Those of the names that `check_names` refuses."""
    own, declared = TENSORS if ours else _STOCK, [str(name) for name in modules_to_save or ()]
    return [name for name in names if name not in own and not any(f".{m}." in f".{name}" for m in declared)]


def foreign_words(names: list[str]) -> str:
    """What is wrong with a file that has these tensors."""
    shown = ", ".join(repr(name) for name in sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
    return (
        f"the adapter holds {shown}, which belongs neither to the prompt nor to the config's `modules_to_save` and "
        "would overwrite the base model's own weights. Nothing was loaded; ask for an adapter without it, or, if it is "
        "yours, declare the module in `modules_to_save` and train again."
    )
