"""Whether every way to run a step is right on this device, and whether any of them stops it."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from benchmarks.device_steps.shapes import DTYPES, adapted, base_model, trained
from peft_interp.tuner import causal_lm
from peft_interp.tuner.projection import equal_rows, nearest_rows, row_terms

WAYS = ("rows", "one pass")


@contextmanager
def forced(way: str) -> Iterator[None]:
    """While open, steps run in this way, whatever the rule would choose."""
    before = causal_lm.choose_way
    causal_lm.choose_way = lambda *args, **kwargs: way
    try:
        yield
    finally:
        causal_lm.choose_way = before


def padded_batch(side: str, leading: bool, labels: str, device: str) -> dict[str, Tensor]:
    """Rows of 4 to 11 tokens, with or without BOS (1), padded with 0."""
    generator = torch.Generator().manual_seed(2)
    ids, mask, wanted = [], [], []
    for length in (11, 4, 7, 9, 5):
        row = torch.randint(3, 499, (length,), generator=generator).tolist()
        row[0] = 1 if leading else row[0]
        pads = 11 - length
        targets = row if labels == "all" else [-100] * (length - 1) + row[-1:]
        left, right = (pads, 0) if side == "left" else (0, pads)
        ids.append([0] * left + row + [0] * right)
        mask.append([0] * left + [1] * length + [0] * right)
        wanted.append([-100] * left + targets + [-100] * right)
    batch = {"input_ids": ids, "attention_mask": mask, "labels": wanted}
    return {name: torch.tensor(values, device=device) for name, values in batch.items()}


def loss_and_gradient(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Of one step."""
    latent = trained(model)
    latent.grad = None
    loss = model(**batch).loss
    loss.backward()
    assert latent.grad is not None
    return loss.detach().double(), latent.grad.double()


def agreement(device: str) -> Iterator[dict[str, Any]]:
    """Largest relative difference to the plain pass in fp32, for each model, type and way."""
    for name in ("gpt2-tiny", "llama-tiny"):
        exact = adapted(base_model(name, "fp32", device), 6, ours=True)
        for dtype in DTYPES:
            base = base_model(name, "fp32", device).to(DTYPES[dtype])
            model = adapted(base, 6, ours=True)
            for way in ("plain", *WAYS):
                worst = [0.0, 0.0]
                error = None
                for side, leading, labels in [("left", True, "all"), ("right", False, "one"), ("left", False, "one")]:
                    batch = padded_batch(side, leading, labels, device)
                    exact.active_peft_config.share_prefix = False
                    model.active_peft_config.share_prefix = way != "plain"
                    trained(model).data.copy_(trained(exact).data)
                    loss, gradient = loss_and_gradient(exact, batch)
                    try:
                        with forced(way):
                            ours, own = loss_and_gradient(model, batch)
                    except Exception:
                        error = traceback.format_exc(limit=-4)
                        break
                    worst[0] = max(worst[0], float((ours - loss).abs() / loss.abs()))
                    worst[1] = max(worst[1], float((own - gradient).norm() / gradient.norm()))
                row = {"model": name, "dtype": dtype, "way": way, "loss": worst[0], "gradient": worst[1]}
                yield {**row, "error": error}


def stops(device: str) -> Iterator[dict[str, Any]]:
    """Whether a warmed-up step makes the host wait for the device."""
    for name, dtype in (("gpt2-tiny", "fp32"), ("llama-tiny", "bf16")):
        for way in WAYS:
            model = adapted(base_model(name, dtype, device), 6, ours=True)
            optimizer = torch.optim.AdamW([trained(model)], lr=0.01)
            error = None
            try:
                with forced(way):
                    for strict in (False, False, True):
                        batch = padded_batch("left", True, "one", device)
                        torch.cuda.synchronize()
                        torch.cuda.set_sync_debug_mode("error" if strict else "default")
                        optimizer.zero_grad()
                        model(**batch).loss.backward()
                        optimizer.step()
                        torch.cuda.set_sync_debug_mode("default")
            except Exception:
                error = traceback.format_exc(limit=-6)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            yield {"model": name, "dtype": dtype, "way": way, "error": error}


def broken_loss(device: str) -> dict[str, Any]:
    """A batch without labels: the loss is NaN, told in the next step at the latest, and the prompt is as it was."""
    model = adapted(base_model("gpt2-tiny", "fp32", device), 6, ours=True)
    optimizer = torch.optim.AdamW([trained(model)], lr=0.1)
    good, bad = (padded_batch("right", False, "one", device) for _ in range(2))
    bad["labels"] = torch.full_like(bad["labels"], -100)
    before, told = trained(model).detach().clone(), None
    try:
        for batch in (bad, good):
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()
    except FloatingPointError as error:
        told = str(error)
    return {"told": told, "as it was": bool(torch.equal(trained(model), before))}


def projection(device: str, vocabulary: int, dim: int, dtype: str, timer: Any) -> dict[str, Any]:
    """Time of the nearest rows against one read of the table, and whether an fp32 copy chooses the same tokens."""
    torch.manual_seed(3)
    table = (torch.randn(vocabulary, dim, device=device) * 0.02).to(DTYPES[dtype])
    latent = table[7:27].float() + 0.02 * torch.randn(20, dim, device=device)
    terms = row_terms(table, "cosine")
    blocked = torch.zeros(vocabulary, dtype=torch.bool, device=device)
    equal = equal_rows(table, blocked)
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    ids = nearest_rows(latent, table, "cosine", terms, blocked, equal)
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20 if device == "cuda" else None
    exact = (latent.double() / latent.double().norm(dim=-1, keepdim=True)) @ table[:4000].double().T
    products = nearest_rows(latent, table[:4000], "cosine", row_terms(table[:4000], "cosine"), blocked[:4000])
    exact = exact / table[:4000].double().norm(dim=-1)
    return {
        "ms": timer(lambda: nearest_rows(latent, table, "cosine", terms, blocked, equal)),
        "read_ms": timer(lambda: table.view(torch.int16 if dtype != "fp32" else torch.int32).sum()),
        "copy_ms": timer(lambda: table.clone()) / 2,
        "peak_mib": peak,
        "ids": ids[:4].tolist(),
        "same_as_fp64": bool((exact.argmax(-1) == products).all()),
    }
