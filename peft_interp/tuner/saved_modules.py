"""Tensors of a saved adapter beside its prompt: those of trained modules, which its config declares, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor

from peft_interp.tuner.saved_adapter import TENSORS, foreign_words

if TYPE_CHECKING:
    from peft import PeftModel


def check_modules(model: PeftModel, adapter_name: str, state_dict: dict[str, Tensor]) -> None:
    """Whether what a checkpoint holds beside the prompt is of modules that its config declares.

    Args:
        model: with the adapter's prompt and its trained modules in place.
        adapter_name: of the adapter.
        state_dict: by the names that the model has for them. What the base model holds already changes nothing and
            passes.

    Raises:
        ValueError: a tensor that would overwrite the base model, or one of a trained module that does not fit.
    """
    if foreign := foreign_tensors(model, adapter_name, state_dict):
        raise ValueError(foreign_words(foreign))
    others = [name for name in state_dict if name not in TENSORS]
    present = model.state_dict() if others else {}
    for name in others:
        tensor, target = state_dict[name], present.get(name)
        if target is None or tensor.shape != target.shape or not torch.isfinite(tensor).all():
            has = "no place" if target is None else f"shape {tuple(target.shape)}"
            raise ValueError(
                f"tensor {name!r} of shape {tuple(tensor.shape)} has {has} in this model, or is not finite; load the "
                "base model that the adapter was trained on, with the same number of labels."
            )


def foreign_tensors(model: PeftModel, adapter_name: str, state_dict: dict[str, Tensor]) -> list[str]:
    """Names of tensors that would change the base model and belong to no module that the adapter declares."""
    others = [name for name in state_dict if name not in TENSORS and "." in name]
    if not others:
        return []
    wrapped = [name for name, module in model.named_modules() if isinstance(module, AuxiliaryTrainingWrapper)]
    declared, present = tuple(f"{name}.modules_to_save.{adapter_name}." for name in wrapped), model.state_dict()
    return [name for name in others if not name.startswith(declared) and not _same(state_dict[name], present, name)]


def _same(tensor: Tensor, present: dict[str, Tensor], name: str) -> bool:
    known = present.get(name)
    return known is not None and known.shape == tensor.shape and torch.equal(known.to(tensor), tensor)
