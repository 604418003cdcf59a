"""A function on two processes, as a launcher runs it: gloo, CPU, ranks 0 and 1.

`torch.distributed.run` would import torch and transformers three times, which is most of such a test's time. Here one
process imports them and forks into the two ranks, which get the launcher's environment variables.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

LIBRARIES = ["torch", "peft", "transformers.trainer", "accelerate", "datasets"]
SECONDS = 600


def on_two_processes(folder: Path, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Run a function that can be imported on both ranks.

    Args:
        folder: for what they return.
        function: at the top of a module.
        arguments: of the function.

    Returns:
        What the function returned on rank 0 and on rank 1.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ranks = [context.Process(target=_rank, args=(rank, port, folder, function, arguments)) for rank in (0, 1)]
    try:
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(SECONDS)
    finally:
        for process in ranks:
            process.kill()
    errors = [path.read_text() for path in sorted(folder.glob("rank*.txt"))]
    assert not errors, "\n".join(errors)
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


def _rank(rank: int, port: int, folder: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE="2",
        LOCAL_WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        OMP_NUM_THREADS="1",
        HF_HUB_OFFLINE="1",
    )
    torch.set_num_threads(1)
    try:
        torch.save(function(*arguments), folder / f"rank{rank}.pt")
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    except BaseException:
        (folder / f"rank{rank}.txt").write_text(traceback.format_exc())
        raise
