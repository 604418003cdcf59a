"""`nn.DataParallel`, which Trainer uses by default with two GPUs: counters, schedules and controllers advance.

Its copies are made here as torch makes them (module by module, parameters as new tensors), on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

Build = Callable[..., Any]


def copied(model: Any) -> Any:
    """One copy of a module for one pass, as `torch.nn.parallel.replicate` makes it."""
    modules = list(model.modules())
    tensors = {parameter: parameter * 1.0 for parameter in model.parameters()}
    copies = {module: module._replicate_for_data_parallel() for module in modules}
    for module, copy in copies.items():
        for name, child in module._modules.items():
            copy._modules[name] = None if child is None else copies[child]
        for name, parameter in module._parameters.items():
            setattr(copy, name, None if parameter is None else tensors[parameter])
        for name, buffer in module._buffers.items():
            copy._buffers[name] = None if buffer is None else buffer.clone()
    return copies[model]


@pytest.mark.parametrize(
    "settings", [{"perplexity_weight": 0.1, "perplexity_warmup_steps": 5}, {"target_perplexity": 2}]
)
def test_counters_advance_through_copies(
    settings: dict[str, Any], gpt2: Build, readable: Build, token_ids: Build
) -> None:
    ids, runs = token_ids(4, 6), []
    for parallel in (False, True):
        model = readable(gpt2(), share_prefix=False, **settings).train()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.3, eps=1e-2)
        for _ in range(6):
            if parallel:
                losses = [copied(model)(input_ids=part, labels=part).loss for part in ids.split(2)]
                loss = torch.stack(losses).mean()
            else:
                loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        runs.append(
            (model.prompt_token_ids(), model.prompt_statistics(), float(model.prompt_encoder["default"].weight))
        )
    (ids_one, one, weight_one), (ids_two, two, weight_two) = runs
    assert one["step"] == two["step"] == 6
    assert ids_one == ids_two
    assert one["perplexity_weight"] == pytest.approx(two["perplexity_weight"], rel=1e-3)
    assert weight_one == pytest.approx(weight_two, rel=1e-3)
    assert one["prompt_nll"] == pytest.approx(two["prompt_nll"], rel=1e-3)
