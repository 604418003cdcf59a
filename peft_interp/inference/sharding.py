"""Refuses ways of sharding a model that would leave a prompt in pieces, before anything is trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_REMEDY = (
    "A prompt has a few thousand numbers, but all of them and the whole embedding table are needed in every step. Use "
    'DDP (`torchrun`, the base model frozen, in bf16 or quantised), or `device_map="auto"` to spread the base model.'
)


def check_whole(model: nn.Module, latent: torch.Tensor) -> None:
    """Refuse a prompt that was cut up with its model.

    Args:
        model: the adapter on its base model.
        latent: the prompt's parameter.

    Raises:
        ValueError: FSDP or DeepSpeed's ZeRO-3, by name.
    """
    sharded = _sharding_of(model, latent)
    if sharded:
        raise ValueError(
            f"this model is sharded by {sharded}, which a prompt of tokens cannot be trained with. {_REMEDY}"
        )


def _sharding_of(model: nn.Module, latent: Any) -> str:
    if hasattr(latent, "ds_id"):
        return "DeepSpeed ZeRO-3" if latent.numel() == 0 or getattr(latent, "ds_tensor", None) is not None else ""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return ""
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    kinds = {FSDPModule: "FSDP2 (`fully_shard`)", FullyShardedDataParallel: "FSDP"}
    return next((name for module in model.modules() for kind, name in kinds.items() if isinstance(module, kind)), "")
