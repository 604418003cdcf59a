"""Every way to run a training step has the plain pass's loss and gradient; what a model cannot have is said, once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from transformers import DynamicCache, GptOssConfig, GptOssForCausalLM, RemBertConfig, RemBertForCausalLM

from peft_interp.tuner import ways
from peft_interp.tuner.training_step import ONE_PASS, ROWS, Way
from tests.builders import checkpointing

Build = Callable[..., Any]


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has the rule say that a way is the faster one."""

    def force(name: str) -> None:
        monkeypatch.setattr(ways, "one_pass_is_faster", lambda *args: name == ONE_PASS)

    return force


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The ways that were chosen, step by step; None for the plain pass."""
    seen: list[str | None] = []
    choose = ways.StepChooser.choose

    def record(self: ways.StepChooser, *args: Any) -> Way | None:
        way = choose(self, *args)
        seen.append(way and way.name)
        return way

    monkeypatch.setattr(ways.StepChooser, "choose", record)
    return seen


def step(model: Any, share: bool | str, **inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and gradient at the latent."""
    model.train()
    model.active_peft_config.share_prefix = share
    latent = model.prompt_encoder["default"].latent
    latent.grad = None
    loss = model(**inputs).loss
    loss.backward()
    return loss.detach(), latent.grad.clone()


def assert_like_plain(model: Any, exact: float = 1e-5, share: bool | str = "auto", **inputs: Any) -> None:
    (loss, gradient), (expected, reference) = (step(model, way, **inputs) for way in (share, False))
    torch.testing.assert_close(loss, expected, rtol=exact, atol=1e-6)
    assert (gradient - reference).norm() <= exact * reference.norm()


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    ours = [record for record in caplog.records if record.name.startswith("peft_interp")]
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("way", [ONE_PASS, ROWS])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("bos", ["no", "all"])
@pytest.mark.parametrize(("name", "options"), [("gpt2", {}), ("llama", {"num_attention_heads": 4}), ("gemma2", {})])
def test_same_loss_and_gradient(
    causal: Build,
    readable: Build,
    batch: Build,
    rows: Build,
    forced: Callable[[str], None],
    used: list[str | None],
    way: str,
    side: str,
    bos: str,
    name: str,
    options: dict[str, Any],
) -> None:
    """Grouped queries, a soft cap after the head, padding on either side, rows of unequal length, BOS."""
    forced(way)
    model = readable(causal(name, **options), perplexity_weight=0.5)
    given = batch(rows(bos), side)
    assert_like_plain(model, **given, labels=given["input_ids"].masked_fill(given["attention_mask"] == 0, -100))
    assert used[0] == (ROWS if name == "gemma2" else way)


@pytest.mark.parametrize("way", [ONE_PASS, ROWS])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_half_precision(
    causal: Build, readable: Build, batch: Build, rows: Build, forced: Any, name: str, way: str
) -> None:
    forced(way)
    given = batch(rows("all"), "left")
    labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
    exact = readable(causal(name), perplexity_weight=0.5)
    loss, gradient = step(exact, False, **given, labels=labels)
    for dtype, close in ((torch.bfloat16, 0.1), (torch.float16, 0.02)):
        half = readable(causal(name).to(dtype), perplexity_weight=0.5)
        found, own = step(half, "auto", **given, labels=labels)
        assert abs(float(found - loss)) < close
        assert (own - gradient).norm() < close * gradient.norm()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, own = step(exact, "auto", **given, labels=labels)
    assert abs(float(found - loss)) < 0.1
    assert (own - gradient).norm() < 0.1 * gradient.norm()


@pytest.mark.parametrize("way", [ONE_PASS, ROWS])
def test_embedding_noise(causal: Build, readable: Build, batch: Build, rows: Build, forced: Any, way: str) -> None:
    """NEFTune's hook adds noise to the text's embeddings, as many tokens as there are, and none to the prompt."""
    forced(way)
    model = readable(causal("llama"))
    noisy: list[torch.Tensor] = []
    handle = model.word_embeddings.register_forward_hook(lambda module, args, out: noisy.append(args[0]) or out + 0.1)
    given = batch(rows("no"), "left")
    labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
    assert_like_plain(model, **given, labels=labels)
    handle.remove()
    assert not any(set(model.prompt_token_ids()) <= set(ids.flatten().tolist()) for ids in noisy)


def test_gradient_checkpointing_runs_rows(
    causal: Build,
    readable: Build,
    batch: Build,
    rows: Build,
    used: list[str | None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = readable(causal("llama"), perplexity_weight=0.5)
    given = batch(rows("all"), "left")
    step(model, "auto", **given, labels=given["input_ids"])
    checkpointing(model.base_model, use_reentrant=False)
    assert_like_plain(model, **given, labels=given["input_ids"].masked_fill(given["attention_mask"] == 0, -100))
    checkpointing(model.base_model, on=False)
    step(model, "auto", **given, labels=given["input_ids"])
    assert used == [ONE_PASS, ROWS, ONE_PASS]
    assert [line for line in warned(caplog) if "gradient checkpointing" in line] == warned(caplog)


def gpt_oss(**overrides: Any) -> GptOssForCausalLM:
    """Attention sinks in every layer, and none with a window."""
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 16, "vocab_size": 64}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
    kinds = {"num_local_experts": 2, "num_experts_per_tok": 1, "layer_types": ["full_attention"] * 2}
    torch.manual_seed(0)
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return GptOssForCausalLM(GptOssConfig(**{**shape, **heads, **kinds, **special, **overrides})).eval()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mistral", "do not see the whole text"),
        ("bloom", "does not take its attention from transformers' interface"),
        ("gpt_oss", "refuses it"),
    ],
)
def test_attention_that_is_not_ours_is_said_once(
    causal: Build,
    readable: Build,
    batch: Build,
    rows: Build,
    used: list[str | None],
    caplog: pytest.LogCaptureFixture,
    name: str,
    reason: str,
) -> None:
    """Windows, biases and sinks: every row has its own prompt, and the result is the same."""
    model = readable(gpt_oss() if name == "gpt_oss" else causal(name), perplexity_weight=0.5)
    given = batch(rows("all"), "left")
    labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
    for _ in range(2):
        assert_like_plain(model, **given, labels=labels)
    assert used == [ROWS, ROWS]
    (line,) = warned(caplog)
    assert reason in line
    assert "a copy of the prompt in every row" in line


def test_a_model_that_is_not_what_it_seems(
    causal: Build, readable: Build, batch: Build, rows: Build, used: list[str | None], caplog: pytest.LogCaptureFixture
) -> None:
    """Unknown code is tried before it is trusted: here a layer in which a token sees the one before, of any row."""
    base = causal("llama")
    mlp = base.model.layers[0].mlp
    plain = mlp.forward
    mlp.forward = lambda states: plain(states + 0.5 * torch.nn.functional.pad(states, (0, 0, 1, 0))[:, :-1])
    model = readable(base)
    given = batch(rows("all"), "right")
    labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
    assert_like_plain(model, **given, labels=labels)
    assert used == [ROWS]
    (line,) = warned(caplog)
    assert "gives another result" in line


def test_more_than_a_loss_is_the_plain_pass(
    causal: Build, readable: Build, batch: Build, rows: Build, caplog: pytest.LogCaptureFixture
) -> None:
    base = causal("llama", attn_implementation="eager")
    model = readable(base, perplexity_weight=0.5).train()
    given = batch(rows("all"), "left")
    output = model(**given, labels=given["input_ids"], output_attentions=True)
    assert output.logits.shape[1] == given["input_ids"].shape[1] + 4
    assert len(output.attentions) == 2
    assert len(warned(caplog)) == 1
    assert "`output_attentions` asks for more than the loss" in warned(caplog)[0]
    assert_like_plain(model, **given, labels=given["input_ids"].masked_fill(given["attention_mask"] == 0, -100))
    assert base.config._attn_implementation == "eager"


def test_model_on_several_devices(
    causal: Build, readable: Build, batch: Build, rows: Build, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """One of the devices is the disk."""
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.norm": "cpu"}
    places |= {"model.rotary_emb": "cpu", "lm_head": "cpu"}
    expected = causal("llama")
    base = dispatch_model(causal("llama"), places, main_device="cpu", offload_dir=tmp_path, force_hooks=True)
    given = batch(rows("all"), "left")
    labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
    loss, gradient = step(readable(base), "auto", **given, labels=labels)
    reference, own = step(readable(expected), False, **given, labels=labels)
    torch.testing.assert_close(loss, reference)
    torch.testing.assert_close(gradient, own)
    assert "several devices" in warned(caplog)[0]


def test_a_cache_of_encoder_and_decoder(
    readable: Build, batch: Build, used: list[str | None], caplog: pytest.LogCaptureFixture
) -> None:
    """RemBert as a decoder returns an `EncoderDecoderCache`."""
    shape = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    widths = {"intermediate_size": 48, "input_embedding_size": 16, "output_embedding_size": 16}
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "max_position_embeddings": 64}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = RemBertConfig(**shape, **widths, **special, **dropout, is_decoder=True)
    for position in ("start", "end"):
        torch.manual_seed(0)
        model = readable(RemBertForCausalLM(config), prompt_position=position, perplexity_weight=0.5)
        given = batch([[5, 6, 7], [8, 9, 3]])
        labels = given["input_ids"].clone()
        labels[:, :2] = -100
        assert_like_plain(model, **given, labels=labels)
    assert used
    assert used[0] is not None


def test_the_rule(causal: Build) -> None:
    """On a CPU one pass; elsewhere where the arithmetic is worth its launches: long batches of large models."""

    class Elsewhere:
        device, dtype = torch.device("cuda"), torch.bfloat16

        def __init__(self, width: int, dtype: torch.dtype = torch.bfloat16) -> None:
            self.config, self.dtype = causal("llama", hidden_size=width, num_attention_heads=2).config, dtype

    assert ways.one_pass_is_faster(causal("gpt2"), 20, (2, 4))
    assert not ways.one_pass_is_faster(Elsewhere(768, torch.float32), 20, (16, 32))
    assert ways.one_pass_is_faster(Elsewhere(768, torch.float32), 20, (64, 32))
    assert not ways.one_pass_is_faster(Elsewhere(2048), 20, (64, 64))
    assert ways.one_pass_is_faster(Elsewhere(4096), 100, (16, 64))
    assert ways.one_pass_is_faster(Elsewhere(4096), 20, (16, 256))


def test_share_prefix_overrides_the_rule(
    causal: Build, readable: Build, batch: Build, rows: Build, forced: Any, used: list[str | None]
) -> None:
    forced(ROWS)
    model = readable(causal("llama"))
    given = batch(rows("all"), "left")
    for share in (True, "auto", False):
        step(model, share, **given, labels=given["input_ids"])
    assert used == [ONE_PASS, ROWS]


def test_threads_share_a_base_model(causal: Build, readable: Build, batch: Build, rows: Build) -> None:
    """Two adapters on one base model train at once, and another thread reads the base model meanwhile."""
    base = causal("llama")
    model = readable(base, perplexity_weight=0.5)
    model.add_adapter("other", model.active_peft_config)
    given = batch(rows("all"), "left")
    labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
    expected = step(model, "auto", **given, labels=labels)[0]
    with torch.no_grad():
        logits = base(**given).logits
    wrong: list[str] = []

    def train() -> None:
        for _ in range(10):
            if not torch.allclose(model(**given, labels=labels).loss.detach(), expected):
                wrong.append("loss")

    def read() -> None:
        for _ in range(20):
            with torch.no_grad():
                if not torch.allclose(base(**given).logits, logits, atol=1e-5):
                    wrong.append("logits")

    threads = [threading.Thread(target=work) for work in (train, train, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert base.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_going_on_from_a_cache_by_either_name(causal: Build, readable: Build, token_ids: Build, name: str) -> None:
    """transformers 5.24 renamed the argument; a loop written for the other version goes on as well."""
    model, ids = readable(causal("llama")).eval(), token_ids(2, 5)
    cache = DynamicCache(config=model.base_model.config)
    with torch.no_grad():
        expected = model(input_ids=ids).logits[:, -1]
        model(input_ids=ids[:, :-1], use_cache=True, **{name: cache})
        found = model(input_ids=ids[:, -1:], **{name: cache}).logits[:, -1]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
