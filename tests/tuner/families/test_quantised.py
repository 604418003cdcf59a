"""Base models whose weights are packed: the table is read through its module, whatever the packing.

The packages are laid over the newest libraries: `make test-newest`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from tests.builders import llama
from tests.gguf_file import write_gguf

Build = Callable[..., Any]


class Int8Embedding(nn.Module):
    """Rows of eight bits with a scale each, as most packings have them."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        scale = rows.abs().amax(dim=1, keepdim=True) / 127
        self.weight = nn.Parameter((rows / scale).round().to(torch.int8), requires_grad=False)
        self.register_buffer("scale", scale)
        self.num_embeddings, self.embedding_dim = rows.shape

    def forward(self, ids: Tensor) -> Tensor:
        return self.weight[ids].float() * self.scale[ids]


def trains(model: Any, steps: int = 3) -> None:
    """Tokens move, and the adapter is its text."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.3)
    ids, first = torch.tensor([[5, 6, 7, 9]]), model.prompt_token_ids()
    for _ in range(steps):
        model.train()(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert model.prompt_token_ids() != first
    pasted = torch.cat((torch.tensor([model.prompt_token_ids()]), ids), dim=1)
    with torch.no_grad():
        expected = model.eval().base_model(input_ids=pasted).logits[:, -1]
        torch.testing.assert_close(model(input_ids=ids).logits[:, -1], expected, rtol=1e-3, atol=1e-3)


def test_an_int8_table_is_read_through_its_module(readable: Build, tmp_path: Path) -> None:
    base = llama()
    base.set_input_embeddings(Int8Embedding(base.get_input_embeddings().weight.data))
    model = readable(base)
    table = model.prompt_encoder["default"].table
    assert torch.equal(table, base.get_input_embeddings()(torch.arange(64)))
    trains(model)
    model.save_pretrained(tmp_path)


def test_a_table_that_cannot_be_read_is_refused(readable: Build) -> None:
    class Packed(Int8Embedding):
        def forward(self, ids: Tensor) -> Tensor:
            raise RuntimeError("not on this device")

    base = llama()
    base.set_input_embeddings(Packed(base.get_input_embeddings().weight.data))
    with pytest.raises(ValueError, match="a Packed with Parameter weights, whose rows cannot be read; load the model"):
        readable(base)


@pytest.mark.filterwarnings("ignore")
def test_bitsandbytes_embeddings(readable: Build) -> None:
    bnb = pytest.importorskip("bitsandbytes")
    base = llama(hidden_size=128)
    table = bnb.nn.Embedding8bit(64, 128)
    table.load_state_dict({"weight": base.get_input_embeddings().weight.data})
    base.set_input_embeddings(table.to("cpu"))
    trains(readable(base))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["bnb-8bit", "bnb-4bit", "torchao-int8"])
def test_quantised_linear_layers(kind: str, readable: Build, tmp_path: Path) -> None:
    pytest.importorskip({"b": "bitsandbytes", "t": "torchao"}[kind[0]])
    from transformers import BitsAndBytesConfig, TorchAoConfig

    if kind == "torchao-int8":
        from torchao.quantization import Int8WeightOnlyConfig

        quantisation: Any = TorchAoConfig(Int8WeightOnlyConfig())
    else:
        quantisation = BitsAndBytesConfig(load_in_8bit="8" in kind, load_in_4bit="4" in kind)
    llama(hidden_size=64, intermediate_size=128).save_pretrained(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=quantisation, device_map="cpu")
    assert any("8bit" in type(m).__name__ or "4bit" in type(m).__name__ for m in base.modules()) or kind[0] == "t"
    trains(readable(base))


@pytest.mark.filterwarnings("ignore")
def test_a_base_model_from_a_gguf_file(readable: Build, tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", packed=True)
    base = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32)
    model = readable(base)
    trains(model)
    model.save_pretrained(tmp_path / "adapter")
    again = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32)
    loaded = PeftModel.from_pretrained(again, str(tmp_path / "adapter"))
    assert loaded.prompt_token_ids() == model.prompt_token_ids()
