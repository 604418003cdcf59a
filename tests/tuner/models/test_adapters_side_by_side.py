"""Several adapters in one model, and other methods beside the plug-in."""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import PeftModel, PromptTuningConfig, get_peft_model
from peft.auto import MODEL_TYPE_TO_PEFT_MODEL_MAPPING
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

import peft_interp
from peft_interp import InterpPromptConfig
from tests import processes

Build = Callable[..., Any]
OURS = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4}


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def test_two_of_ours(causal: Build, readable: Build, token_ids: Build, tmp_path: Path) -> None:
    model = readable(causal("llama"))
    model.add_adapter("second", InterpPromptConfig(**{**OURS, "num_virtual_tokens": 2}))
    model.use_prompt([7, 8], "second")
    ids = token_ids(2, 5)
    first = logits(model, ids)
    model.set_adapter("second")
    assert model.prompt_token_ids() == [7, 8]
    second = logits(model, ids)
    text = torch.cat((torch.tensor([[7, 8]] * 2), ids), dim=1)
    torch.testing.assert_close(second, logits(causal("llama"), text), atol=1e-5, rtol=1e-5)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(causal("llama"), tmp_path)
    loaded.load_adapter(tmp_path / "second", "second")
    assert torch.equal(logits(loaded, ids), first)
    loaded.set_adapter("second")
    assert torch.equal(logits(loaded, ids), second)
    with pytest.warns(UserWarning, match="was active which is now deleted"):
        loaded.delete_adapter("second")
    assert torch.equal(logits(loaded, ids), first)
    with pytest.raises(ValueError, match=r"'second' is no InterpPrompt adapter; adapters here: \['default'\]"):
        loaded.prompt_token_ids("second")


def test_ours_and_plain_prompt_tuning(
    causal: Build, readable: Build, with_prompt: Build, token_ids: Build, batch: Build, rows: Build
) -> None:
    """The plain adapter in our model behaves as in PEFT's own class, padding and all."""
    stock = with_prompt(causal("llama")).eval()
    model = readable(causal("llama"))
    ours = logits(model, token_ids(2, 5))
    model.add_adapter("plain", PromptTuningConfig(**OURS))
    weight = stock.prompt_encoder["default"].embedding.weight
    model.prompt_encoder["plain"].embedding.weight.data.copy_(weight.data)
    model.set_adapter("plain")
    given = batch(rows("all"), "left")
    with torch.no_grad():
        assert torch.equal(model(**given).logits, stock(**given).logits)
    loss, expected = (m.train()(**given, labels=given["input_ids"]).loss for m in (model, stock))
    assert torch.equal(loss, expected)
    with pytest.warns(UserWarning, match="Position ids are not supported"):
        written, theirs = (m.eval().generate(**given, max_new_tokens=3) for m in (model, stock))
    assert torch.equal(written, theirs)
    with pytest.raises(ValueError, match="'plain' is no InterpPrompt adapter"):
        model.prompt_token_ids()
    model.delete_adapter("default")
    model.add_adapter("again", InterpPromptConfig(**OURS))
    model.set_adapter("again")
    assert not torch.equal(logits(model, token_ids(2, 5)), ours)


def test_ours_in_a_model_made_for_another(causal: Build, with_prompt: Build, token_ids: Build) -> None:
    """PEFT's class puts the prompt before BOS: it works, with a warning."""
    model = with_prompt(causal("llama")).eval()
    model.add_adapter("ours", InterpPromptConfig(**OURS))
    model.set_adapter("ours")
    with pytest.warns(UserWarning, match="Make the model with the InterpPrompt adapter first"):
        first = logits(model, token_ids(2, 5))
    assert torch.equal(logits(model, token_ids(2, 5)), first)


def test_disable_adapter(causal: Build, readable: Build, batch: Build, rows: Build) -> None:
    model, base = readable(causal("llama")), causal("llama")
    given = batch(rows("all"), "left")
    with_adapter = model.generate(**given, max_new_tokens=5)
    with torch.no_grad(), model.disable_adapter():
        assert torch.equal(model(**given).logits, base(**given).logits)
        assert torch.equal(model.generate(**given, max_new_tokens=5), base.generate(**given, max_new_tokens=5))
    assert model(**given).logits.shape[1] == 4 + 8
    assert torch.equal(model.generate(**given, max_new_tokens=5), with_adapter)


def test_other_methods_in_one_model(causal: Build, readable: Build) -> None:
    with pytest.raises(ValueError, match="Cannot combine adapters with different peft types"):
        readable(causal("llama")).add_adapter("another", peft.LoraConfig(target_modules=["q_proj"]))


MODES = ("with", "without")
STOCK = """
import sys, torch, warnings
warnings.simplefilter("ignore")
assert ("peft_interp" in sys.modules) == (sys.argv[1] == "with")
from peft import LoraConfig, PromptTuningConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM
from peft import get_peft_model_state_dict
out = {}
common = {"task_type": "CAUSAL_LM"}
prompt = {"num_virtual_tokens": 3, "prompt_tuning_init": "RANDOM"}
for name, config in {
    "prompt": PromptTuningConfig(**common, **prompt), "lora": LoraConfig(**common, target_modules=["q_proj"])
}.items():
    torch.manual_seed(0)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(sys.argv[2]), config)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    ids = torch.tensor([[0, 0, 1, 5, 6], [1, 9, 8, 7, 6]])
    mask = ids.ne(0).long()
    for _ in range(2):
        model(input_ids=ids, attention_mask=mask, labels=ids).loss.backward()
        optimizer.step()
    out |= {f"{name} {k}": v.detach().clone() for k, v in model.state_dict().items()}
    out |= {f"{name} saved {k}": v.detach().clone() for k, v in get_peft_model_state_dict(model).items()}
    model.save_pretrained(sys.argv[3] + name)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(sys.argv[2]), sys.argv[3] + name)
    with torch.no_grad():
        out[name + " logits"] = loaded(input_ids=ids, attention_mask=mask).logits
    out[name + " generate"] = loaded.generate(input_ids=ids, attention_mask=mask, max_new_tokens=4)
    out[name + " class"] = [c.__module__ + c.__qualname__ for c in type(loaded).__mro__]
    out[name + " modules"] = [str(type(m)) for m in loaded.modules()]
torch.save(out, sys.argv[3] + "out")
if sys.argv[1] == "without":
    import warnings
    from peft import PeftConfig
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        print(type(PeftConfig.from_pretrained(sys.argv[4])).__name__, len(caught), caught[0].message)
"""


def test_a_process_without_the_plugin(
    causal: Build, readable: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompt tuning and LoRA, trained, saved and loaded, are the same with and without; ours is a stock one there."""
    causal("llama").save_pretrained(tmp_path / "base")
    readable(causal("llama")).save_pretrained(tmp_path / "ours")
    script = tmp_path / "stock.py"
    script.write_text(STOCK)
    arguments = {mode: [str(tmp_path / "base"), f"{tmp_path / mode}/", str(tmp_path / "ours")] for mode in MODES}
    for mode in MODES:
        (tmp_path / mode).mkdir()
    monkeypatch.setattr(sys, "argv", [str(script), "with", *arguments["with"]])
    runpy.run_path(str(script), run_name="__main__")
    printed = processes.run(str(script), "without", *arguments["without"], check=True).stdout
    assert "PromptTuningConfig 1 Unexpected keyword arguments ['peft_interp'] for class PromptTuningConfig" in printed
    first, second = (torch.load(tmp_path / mode / "out") for mode in MODES)
    assert list(first) == list(second)
    for name, value in first.items():
        same = torch.equal(value, second[name]) if isinstance(value, torch.Tensor) else value == second[name]
        assert same, name
    for name in ("prompt", "lora"):
        configs = [(tmp_path / mode / name / "adapter_config.json").read_text() for mode in MODES]
        assert configs[0] == configs[1]


def test_registering_again_changes_nothing(causal: Build, readable: Build, token_ids: Build) -> None:
    rows = dict(PEFT_TYPE_TO_TUNER_MAPPING), dict(MODEL_TYPE_TO_PEFT_MODEL_MAPPING), dict(PEFT_TYPE_TO_CONFIG_MAPPING)
    ids = token_ids(2, 5)
    expected = logits(readable(causal("llama")), ids)
    try:
        for again in (peft_interp.register, lambda: importlib.reload(peft_interp)):
            again()
            for task, registered in MODEL_TYPE_TO_PEFT_MODEL_MAPPING.items():
                assert registered.__mro__[1] is rows[1][task].__mro__[1], "dispatchers must not stack"
            assert PEFT_TYPE_TO_TUNER_MAPPING["PROMPT_TUNING"].__mro__[1] is peft.PromptEmbedding
            assert torch.equal(logits(readable(causal("llama")), ids), expected)
    finally:
        PEFT_TYPE_TO_TUNER_MAPPING.update(rows[0])
        MODEL_TYPE_TO_PEFT_MODEL_MAPPING.update(rows[1])
        PEFT_TYPE_TO_CONFIG_MAPPING.update(rows[2])


class NarrowerConfig(InterpPromptConfig):
    """A user's own subclass."""


def test_subclass_of_the_config(causal: Build, token_ids: Build) -> None:
    model = get_peft_model(causal("llama"), NarrowerConfig(**OURS))
    assert type(model).__qualname__ == "InterpPromptModelForCausalLM"
    assert len(model.prompt_token_ids()) == 4
