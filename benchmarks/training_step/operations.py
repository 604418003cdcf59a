"""What one training step gives a device to do: operations, and those among them that make the host wait for it.

Counted on the CPU, at real depth and small width; a GPU runs a kernel or two for each. Views and empty tensors, which
are no work, do not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.training_step.models import Case, adapted, base_model, case_batch, trained
from benchmarks.training_step.ways import forced
from peft_interp.tuner import embedding, readback
from peft_interp.tuner.training_step import ONE_PASS, ROWS

_VIEWS = {
    *("view", "_unsafe_view", "expand", "transpose", "t", "slice", "select", "unsqueeze", "squeeze", "permute"),
    *("detach", "alias", "split", "split_with_sizes", "as_strided", "unbind", "unfold", "lift_fresh"),
    *("empty", "empty_like", "new_empty", "empty_strided"),
}
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim"}
CASES = [Case(name, "fp32", 16, 20, 32, "one") for name in ("gpt2-12-thin", "llama-16-thin")]


class _Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def operations() -> list[dict[str, Any]]:
    """Operations of a step (zero_grad, forward, backward) with stock prompt tuning and in each way of ours."""
    return [_counted(case) for case in CASES]


def _counted(case: Case) -> dict[str, Any]:
    base = base_model(case.model, case.dtype, "cpu")
    found = {"stock": _step(case, base, None), **{way: _step(case, base, way) for way in (ROWS, ONE_PASS)}}
    stock = found["stock"]["operations"]
    return {"case": case.name, **{name: {**one, "ratio": one["operations"] / stock} for name, one in found.items()}}


def _step(case: Case, base: Any, way: str | None) -> dict[str, int]:
    model = adapted(base, case.prompt, ours=way is not None)
    batch = case_batch(case, base.config.vocab_size, "cpu")
    optimizer = torch.optim.AdamW([trained(model)], lr=0.01)
    with forced(way or ROWS), _read_late():
        for _ in range(2):  # the first steps look at model and batch
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()
        with _Count() as mode:
            optimizer.zero_grad()
            model(**batch).loss.backward()
    work = {name: count for name, count in mode.counts.items() if name not in _VIEWS}
    return {"operations": sum(work.values()), "waits": sum(work[name] for name in WAITS & set(work))}


@contextmanager
def _read_late() -> Iterator[None]:
    """While open, numbers are read as on a GPU: not before they are asked for."""
    make, same = readback.Readback.__init__, embedding.same_on_host

    def later(self: readback.Readback, numbers: torch.Tensor) -> None:
        make(self, numbers)
        self.immediate = False

    readback.Readback.__init__, embedding.same_on_host = later, lambda one, other: False  # type: ignore[method-assign]
    try:
        yield
    finally:
        readback.Readback.__init__, embedding.same_on_host = make, same  # type: ignore[method-assign]
