"""A training step reads nothing from the device that the host would have to wait for: what a GPU would be stopped by.

On a CPU the numbers are at hand at once, so reading is made here as it is on a GPU: not before it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

from peft_interp.tuner import embedding, readback, ways
from peft_interp.tuner.training_step import ONE_PASS, ROWS
from tests.no_stops import NoStops

Build = Callable[..., Any]


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    make = readback.Readback.__init__

    def later(self: readback.Readback, numbers: Tensor) -> None:
        make(self, numbers.clone())
        self.immediate = False

    monkeypatch.setattr(readback.Readback, "__init__", later)
    monkeypatch.setattr(embedding, "same_on_host", lambda one, other: False)


def force(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr(ways, "one_pass_is_faster", lambda *args: way == ONE_PASS)


def labelled(given: dict[str, Tensor], pattern: str) -> Tensor:
    labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
    if pattern == "one":
        labels = torch.where(torch.arange(labels.shape[1]) == labels.ne(-100).cumsum(1).argmax(1, True), labels, -100)
    return labels


def latent_of(model: Any) -> Any:
    return model.prompt_encoder["default"].latent


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("pattern", ["one", "all"])
@pytest.mark.parametrize("way", [ONE_PASS, ROWS])
@pytest.mark.parametrize(("name", "bos"), [("gpt2", "no"), ("llama", "all")])
def test_step_without_a_stop(
    causal: Build,
    readable: Build,
    batch: Build,
    rows: Build,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    bos: str,
    way: str,
    pattern: str,
) -> None:
    """Forward and backward, with projection, perplexity term, target and padding; the first steps look around."""
    force(monkeypatch, way)
    model = readable(causal(name), target_perplexity=50.0).train()
    optimizer = torch.optim.AdamW([latent_of(model)], lr=0.1)
    given = batch(rows(bos), "left")
    given["labels"] = labelled(given, pattern)
    for number in range(6):
        optimizer.zero_grad()
        if number < 2:
            model(**given).loss.backward()
        else:
            with NoStops():
                model(**given).loss.backward()
        optimizer.step()
    assert model.prompt_statistics()["step"] == 6


@pytest.mark.usefixtures("as_on_a_gpu")
def test_the_guard_sees_stops() -> None:
    values = torch.arange(4)
    for stop in (lambda: values[1].item(), lambda: values[values > 1], lambda: bool(values.any()), values.nonzero):
        with NoStops(), pytest.raises(AssertionError, match="stops the device"):
            stop()


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("way", [ONE_PASS, ROWS])
def test_a_batch_of_another_kind_is_run_again(
    causal: Build, readable: Build, batch: Build, rows: Build, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The step is laid out as the last batch was; loss and gradient are right for any batch that follows."""
    force(monkeypatch, way)
    model, plain = (readable(causal("llama"), perplexity_weight=0.5) for _ in range(2))
    kinds = [("all", "left", "one"), ("all", "left", "all"), ("no", "right", "one"), ("some", "left", "all")]
    kinds += [("no", "left", "all"), ("all", "right", "one"), ("no", "left", "one")]
    for bos, side, pattern in kinds:
        given = batch(rows(bos), side)
        found = []
        for one, share in ((model, "auto"), (plain, False)):
            one.train()
            one.active_peft_config.share_prefix = share
            latent_of(one).grad = None
            loss = one(**given, labels=labelled(given, pattern)).loss
            loss.backward()
            found.append((loss.detach(), latent_of(one).grad))
        torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
        assert (found[0][1] - found[1][1]).norm() <= 1e-5 * found[1][1].norm()


@pytest.mark.usefixtures("as_on_a_gpu")
def test_broken_loss_is_told_and_undone(
    causal: Build, readable: Build, batch: Build, rows: Build, tmp_path: Path
) -> None:
    """In the next step, before statistics, and before saving; the prompt is then as the broken step found it."""
    for ask in ("step", "statistics", "save"):
        model = readable(causal("gpt2")).train()
        optimizer = torch.optim.AdamW([latent_of(model)], lr=0.1)
        given = batch(rows("no"), "left")
        before = latent_of(model).detach().clone()
        loss = model(**given, labels=torch.full_like(given["input_ids"], -100)).loss
        assert math.isnan(loss.item())
        loss.backward()
        latent_of(model).grad.fill_(math.nan)
        optimizer.step()
        asked = {
            "step": partial(model, **given, labels=given["input_ids"]),
            "statistics": model.prompt_statistics,
            "save": partial(model.save_pretrained, str(tmp_path)),
        }
        with pytest.raises(FloatingPointError, match="The prompt is still as it was"):
            asked[ask]()
        assert not list(tmp_path.glob("*.safetensors"))
        assert torch.equal(latent_of(model), before)


@pytest.mark.usefixtures("as_on_a_gpu")
def test_training_is_the_same_however_numbers_are_read(
    causal: Build, readable: Build, batch: Build, rows: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Weight controller, step count and saved prompt of a run do not depend on when the host learns of them."""
    given = batch(rows("all"), "left")
    data = [{**{k: v[i] for k, v in given.items()}, "labels": labelled(given, "all")[i]} for i in range(3)] * 4
    states = []
    for later in (True, False):
        if not later:
            monkeypatch.undo()
        model = readable(causal("llama"), target_perplexity=20.0)
        options = {"per_device_train_batch_size": 3, "num_train_epochs": 3, "learning_rate": 0.3, "report_to": "none"}
        arguments = TrainingArguments(output_dir=str(tmp_path / str(later)), disable_tqdm=True, use_cpu=True, **options)
        Trainer(model=model, args=arguments, train_dataset=data).train()
        statistics = model.prompt_statistics()
        states.append((statistics, model.prompt_token_ids(), latent_of(model).detach().clone()))
    assert states[0][:2] == states[1][:2]
    assert states[0][0]["step"] == 12
    torch.testing.assert_close(states[0][2], states[1][2])
