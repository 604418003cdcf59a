"""A function on two processes, as a launcher runs it: gloo, CPU, ranks 0 and 1.

`torch.distributed.run` would import torch and transformers three times, which is most of such a test's time. Here the
two ranks, which get the launcher's environment variables, are forked from one process that has them.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests import processes

ROOT = Path(__file__).parents[1]


def on_two_processes(folder: Path, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Run a function that can be imported on both ranks.

    Args:
        folder: for what they return.
        function: at the top of a module.
        arguments: of the function.

    Returns:
        What the function returned on rank 0 and on rank 1.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    launched = {
        **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), "2"),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),  # for the function's module
    }
    (folder / "call.pkl").write_bytes(pickle.dumps((function, arguments)))
    ranks: list[Any] = []
    try:
        for rank in "01":
            environment = {**os.environ, **launched, "RANK": rank, "LOCAL_RANK": rank}
            command = ["-m", "tests.two_processes", str(folder), rank]
            ranks.append(processes.start(*command, cwd=ROOT, env=environment))
        for process in ranks:
            process.wait(processes.SECONDS)
    finally:
        for process in ranks:
            process.kill()
    errors = [path.read_text() for path in sorted(folder.glob("rank*.txt"))]
    assert not errors, "\n".join(errors)
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


def _run(folder: Path, rank: str) -> None:
    torch.set_num_threads(1)
    try:
        function, arguments = pickle.loads((folder / "call.pkl").read_bytes())
        torch.save(function(*arguments), folder / f"rank{rank}.pt")
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    except BaseException:
        (folder / f"rank{rank}.txt").write_text(traceback.format_exc())
        raise


if __name__ == "__main__":
    _run(Path(sys.argv[1]), sys.argv[2])
