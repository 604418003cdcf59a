"""Whether every way to run a step is right on this device, and on a GPU whether any of them stops it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import now
from benchmarks.training_step.candidates import nearest_in_one_read, with_unequal_rows
from benchmarks.training_step.models import DTYPES, adapted, base_model, trained
from benchmarks.training_step.ways import forced
from peft_interp.tuner.projection import nearest_rows, row_terms
from peft_interp.tuner.training_step import ONE_PASS, ROWS

Context = Callable[[], AbstractContextManager[None]]
PROMPT = 6


def checks(device: str) -> dict[str, Any]:
    """Agreement with the plain pass in each number format; a broken loss; on a GPU stops and a large projection."""
    found: dict[str, Any] = {"ways": list(_agreement(device)), "broken_loss": _broken_loss(device)}
    if device == "cuda":
        found |= {"stops": list(_stops()), "projection": _large_projection()}
    return found


def _ways(device: str) -> dict[str, list[Context]]:
    known: dict[str, list[Context]] = {ROWS: [partial(forced, ROWS)], ONE_PASS: [partial(forced, ONE_PASS)]}
    if device == "cuda":
        known[f"{ONE_PASS}, unequal rows"] = [partial(forced, ONE_PASS), with_unequal_rows]
    return known


def _padded_batch(side: str, leading: bool, labels: str, device: str) -> dict[str, Tensor]:
    """Rows of 4 to 11 tokens, with or without BOS (1), padded with 0."""
    generator = torch.Generator().manual_seed(2)
    ids, mask, wanted = [], [], []
    for length in (11, 4, 7, 9, 5):
        row = torch.randint(3, 499, (length,), generator=generator).tolist()
        row[0] = 1 if leading else row[0]
        targets = row if labels == "all" else [-100] * (length - 1) + row[-1:]
        left, right = (11 - length, 0) if side == "left" else (0, 11 - length)
        ids.append([0] * left + row + [0] * right)
        mask.append([0] * left + [1] * length + [0] * right)
        wanted.append([-100] * left + targets + [-100] * right)
    batch = {"input_ids": ids, "attention_mask": mask, "labels": wanted}
    return {name: torch.tensor(values, device=device) for name, values in batch.items()}


def _loss_and_gradient(model: Any, batch: dict[str, Tensor], contexts: list[Context]) -> tuple[Tensor, Tensor]:
    if contexts:
        with contexts[0]():
            return _loss_and_gradient(model, batch, contexts[1:])
    latent = trained(model)
    latent.grad = None
    loss = model(**batch).loss
    loss.backward()
    assert latent.grad is not None
    return loss.detach().double(), latent.grad.double()


def _agreement(device: str) -> Iterator[dict[str, Any]]:
    """Largest relative difference to the plain pass in fp32, for each model, number format and way."""
    batches = [
        _padded_batch(side, leading, labels, device)
        for side, leading, labels in [("left", True, "all"), ("right", False, "one"), ("left", False, "one")]
    ]
    for name in ("gpt2-tiny", "llama-tiny"):
        exact = adapted(base_model(name, "fp32", device), PROMPT, ours=True, share_prefix=False)
        for dtype in DTYPES:
            for way, contexts in {"plain": [], **_ways(device)}.items():
                base = base_model(name, "fp32", device).to(DTYPES[dtype])
                model = adapted(base, PROMPT, ours=True, share_prefix="auto" if contexts else False)
                trained(model).data.copy_(trained(exact).data)
                row: dict[str, Any] = {"model": name, "dtype": dtype, "way": way}
                try:
                    pairs = [
                        (_loss_and_gradient(exact, batch, []), _loss_and_gradient(model, batch, contexts))
                        for batch in batches
                    ]
                except Exception as error:  # what one card cannot do must not lose the rest
                    yield {**row, "error": repr(error)[:500]}
                    continue
                losses = max(float((own[0] - its[0]).abs() / its[0].abs()) for its, own in pairs)
                gradients = max(float((own[1] - its[1]).norm() / its[1].norm()) for its, own in pairs)
                yield {**row, "loss_error": losses, "gradient_error": gradients}


def _stops() -> Iterator[dict[str, Any]]:
    """Whether a warmed-up step makes the host wait for the GPU."""
    for name, dtype in (("gpt2-tiny", "fp32"), ("llama-tiny", "bf16")):
        for way, contexts in _ways("cuda").items():
            model = adapted(base_model(name, dtype, "cuda"), PROMPT, ours=True)
            optimizer, found = torch.optim.AdamW([trained(model)], lr=0.01), "none"
            try:
                for strict in (False, False, True):
                    batch = _padded_batch("left", True, "one", "cuda")
                    torch.cuda.synchronize()
                    torch.cuda.set_sync_debug_mode("error" if strict else "default")
                    _loss_and_gradient(model, batch, contexts)
                    optimizer.step()
            except Exception as error:
                found = repr(error)[:500]
            finally:
                torch.cuda.set_sync_debug_mode("default")
            yield {"model": name, "dtype": dtype, "way": way, "stop": found}


def _broken_loss(device: str) -> dict[str, Any]:
    """A batch without labels: the loss is NaN, told in the next step at the latest, and the prompt is as it was."""
    model = adapted(base_model("gpt2-tiny", "fp32", device), PROMPT, ours=True)
    optimizer = torch.optim.AdamW([trained(model)], lr=0.1)
    good, bad = (_padded_batch("right", False, "one", device) for _ in range(2))
    bad["labels"] = torch.full_like(bad["labels"], -100)
    before, told = trained(model).detach().clone(), False
    try:
        for batch in (bad, good):
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()
    except FloatingPointError:
        told = True
    return {"told": told, "as_it_was": bool(torch.equal(trained(model), before))}


def _large_projection() -> dict[str, Any]:
    """Milliseconds of the nearest rows among 128,256 x 4,096 in bf16, against one read of the table."""
    table = torch.randn(128256, 4096, device="cuda").mul_(0.02).to(torch.bfloat16)
    latent = table[7:27].float() + 0.02 * torch.randn(20, 4096, device="cuda")
    terms = row_terms(table, "cosine")
    assert terms is not None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    ids = nearest_rows(latent, table, "cosine", terms)
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20
    found: dict[str, Any] = {"peak_mib": peak}
    searches: dict[str, Callable[[], Tensor]] = {
        "ms": lambda: nearest_rows(latent, table, "cosine", terms),
        "read_ms": lambda: table.view(torch.int16).sum(),
        "one_read_ms": lambda: nearest_in_one_read(latent, table, terms),
    }
    for name, search in searches.items():
        try:
            times = sorted(_milliseconds(search) for _ in range(13))
            found[name] = times[6]
        except Exception as error:
            found[name] = repr(error)[:300]
    try:
        found["one_read_same_ids"] = bool(torch.equal(ids, nearest_in_one_read(latent, table, terms)))
    except Exception as error:
        found["one_read_same_ids"] = repr(error)[:300]
    return found


def _milliseconds(call: Callable[[], Any]) -> float:
    now("cuda")
    begin = time.perf_counter()
    call()
    return (now("cuda") - begin) * 1000
