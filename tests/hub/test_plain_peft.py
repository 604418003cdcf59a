"""A saved prompt opens with plain PEFT where that can place it, and with this package wherever PEFT opens a prompt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AutoPeftModelForCausalLM,
    PeftConfig,
    PeftModel,
    PromptTuningConfig,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BertForSequenceClassification

from peft_interp import InterpPromptConfig, continue_training
from peft_interp.tuner.stored_config import from_stored
from tests import processes

Build = Callable[..., Any]
IDS = [9, 10, 11, 9]

WITHOUT = """
import sys, torch, warnings
from peft import AutoPeftModelForCausalLM, PeftConfig, PeftModel, PromptTuningConfig
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BertForSequenceClassification, pipeline

folder = sys.argv[1] + "/"
known = load_file(folder + "known.safetensors")
base = lambda: AutoModelForCausalLM.from_pretrained(folder + "base")

def acts_alike(model, name="start"):
    assert type(model.active_peft_config) is PromptTuningConfig
    with torch.no_grad():
        logits = model.eval()(input_ids=known["ids"]).logits
    torch.testing.assert_close(logits, known[name], atol=1e-5, rtol=1e-5)

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    plain = PeftModel.from_pretrained(base(), folder + "start")
said = {str(warning.message).split(",")[0] for warning in caught if warning.category is UserWarning}
assert said == {"Unexpected keyword arguments ['peft_interp'] for class PromptTuningConfig"}, said
acts_alike(plain)
warnings.simplefilter("ignore")
found = AutoPeftModelForCausalLM.from_pretrained(folder + "start")
acts_alike(found)
plain.load_adapter(folder + "soft", "soft")
plain.set_adapter("soft")
acts_alike(plain, "soft")
bert = BertForSequenceClassification.from_pretrained(folder + "bert")
acts_alike(PeftModel.from_pretrained(bert, folder + "classes"), "classes")
writer = pipeline("text-generation", model=found, tokenizer=AutoTokenizer.from_pretrained(folder + "tokenizer"))
assert writer("w5 w6", max_new_tokens=2, do_sample=False)[0]["generated_text"].startswith("w5 w6")
found.save_pretrained(folder + "again")
try:
    PeftConfig.from_pretrained(folder + "end")
except KeyError as error:
    print(error)
assert not any(name.split(".")[0] == "peft_interp" for name in sys.modules), "the plug-in was imported"
"""


@pytest.fixture
def folder(gpt2: Build, bert: Build, readable: Build, tokenizer_dir: Path, tmp_path: Path) -> Path:
    """Adapters beside the base model that they name: `start`, `soft`, `end`, and `classes` of a BERT."""
    ids, found = torch.tensor([[5, 6, 7], [8, 9, 10]]), {}
    gpt2().save_pretrained(tmp_path / "base")
    bert(BertForSequenceClassification, num_labels=3).save_pretrained(tmp_path / "bert")
    settings: dict[str, Any] = {
        "start": {},
        "soft": {"projection_metric": "none"},
        "end": {"prompt_position": "end"},
        "classes": {"task_type": "SEQ_CLS"},
    }
    for name, options in settings.items():
        if name == "classes":
            base: Any = BertForSequenceClassification.from_pretrained(tmp_path / "bert")
        else:
            base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        model = readable(base, **options).eval()
        model.use_prompt(IDS)
        if name in ("soft", "classes"):
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.data += 0.5 * torch.randn_like(parameter)
        model.save_pretrained(tmp_path / name)
        with torch.no_grad():
            found[name] = model(input_ids=ids).logits
    save_file({"ids": ids, **found}, tmp_path / "known.safetensors")
    return tmp_path


def test_a_process_without_this_package(folder: Path) -> None:
    finished = processes.run("-c", WITHOUT, str(folder), timeout=170)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "plain PEFT cannot place this prompt; `import peft_interp` before it is loaded" in finished.stdout
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder / "base"), folder / "again")
    assert type(again.peft_config["default"]) is PromptTuningConfig, "what plain PEFT saves is stock"


WAYS: dict[str, Callable[[Path], Any]] = {
    "AutoPeft": lambda place: AutoPeftModelForCausalLM.from_pretrained(place),
    "PeftModel": lambda place: PeftModel.from_pretrained(base_of(place), place),
    "with a config": lambda place: PeftModel.from_pretrained(
        base_of(place), place, config=PeftConfig.from_pretrained(place)
    ),
    "with a stock config": lambda place: PeftModel.from_pretrained(
        base_of(place), place, config=PromptTuningConfig.from_pretrained(place)
    ),
    "continue_training": lambda place: continue_training(base_of(place), str(place)).eval(),
}


def base_of(place: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(place.parent / "base")


@pytest.mark.parametrize("name", ["start", "soft", "end"])
@pytest.mark.parametrize("way", WAYS)
def test_with_this_package_every_way_gives_our_model(folder: Path, way: str, name: str) -> None:
    model, known = WAYS[way](folder / name), load_file(folder / "known.safetensors")
    assert type(model.peft_config["default"]) is InterpPromptConfig
    with torch.no_grad():
        assert torch.equal(model(input_ids=known["ids"]).logits, known[name])


@pytest.mark.parametrize("name", ["start", "end"])
def test_a_folder_of_an_earlier_version_loads_and_is_saved_in_the_new_form(folder: Path, name: str) -> None:
    path, known = folder / name / "adapter_config.json", load_file(folder / "known.safetensors")
    new = json.loads(path.read_text())
    path.write_text(json.dumps(from_stored(new)))
    assert json.loads(path.read_text())["peft_type"] == "INTERP_PROMPT"
    model = PeftModel.from_pretrained(base_of(folder / name), folder / name).eval()
    with torch.no_grad():
        assert torch.equal(model(input_ids=known["ids"]).logits, known[name])
    model.save_pretrained(folder / name)
    assert json.loads(path.read_text()) == new


@pytest.mark.parametrize("name", ["start", "soft", "end"])
def test_saving_what_was_loaded_gives_the_same_files(folder: Path, name: str) -> None:
    model = PeftModel.from_pretrained(base_of(folder / name), folder / name)
    model.save_pretrained(folder / "again")
    for file in ("adapter_config.json", "adapter_model.safetensors", "prompt.json"):
        assert (folder / "again" / file).read_bytes() == (folder / name / file).read_bytes(), file


def test_pefts_own_state_dictionaries_carry_the_prompt(folder: Path, readable: Build, tokenizer_dir: Path) -> None:
    model = PeftModel.from_pretrained(base_of(folder / "start"), folder / "start")
    state = get_peft_model_state_dict(model)
    assert state.keys() == load_file(folder / "start" / "adapter_model.safetensors").keys()
    other = readable(base_of(folder / "start"))
    set_peft_model_state_dict(other, state)
    assert other.prompt_token_ids() == IDS
    assert AutoTokenizer.from_pretrained(tokenizer_dir).decode(IDS) == "w9 w10 w11 w9"
