"""Sharded models are refused by name before anything is trained: FSDP2 on two processes, ZeRO-3 by its mark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from peft_interp.inference.sharding import check_whole
from tests.builders import llama, readable
from tests.two_processes import on_two_processes


def shard(kind: str) -> str:
    """What training says after `fully_shard` of the base model's layers, or of all."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))
    model: Any = readable(llama()).train()
    for layer in model.base_model.model.layers:
        fully_shard(layer, mesh=mesh)
    if kind == "all":
        fully_shard(model, mesh=mesh)
    ids = torch.tensor([[5, 6, 7]])
    try:
        model(input_ids=ids, labels=ids)
    except ValueError as problem:
        return str(problem)
    return "trained"


def test_fsdp2_is_refused_by_name(tmp_path: Path) -> None:
    for said in on_two_processes(tmp_path, shard_both):
        for words in said:
            assert words.startswith("this model is sharded by FSDP2 (`fully_shard`), which a prompt of tokens cannot")
            assert "Use DDP" in words


def shard_both() -> list[str]:
    return [shard("layers"), shard("all")]


def test_zero_3_is_refused_by_name() -> None:
    """DeepSpeed needs a compiler and CUDA to be run; a parameter that it took away looks like this."""
    latent: Any = torch.nn.Parameter(torch.zeros(0))
    latent.ds_id, latent.ds_tensor = 7, torch.zeros(8)
    with pytest.raises(ValueError, match="sharded by DeepSpeed ZeRO-3"):
        check_whole(torch.nn.Linear(1, 1), latent)
    check_whole(torch.nn.Linear(1, 1), torch.nn.Parameter(torch.zeros(4, 8)))
