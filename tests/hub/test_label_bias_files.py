"""Numbers for the label words in an adapter's files: saved, shown, checked, and never those of another prompt."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel, get_peft_model

from peft_interp import InterpPromptConfig, continue_training, embedded
from peft_interp.text.label_bias import LabelBias
from peft_interp.tuner.stored_config import SETTINGS_KEY

BIAS = LabelBias(("terrible", "great"), (0.75, -0.75), "batch", 32, "{prompt} {text} It was")


def prompted(**config: Any) -> Any:
    start = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "Movie review:"}
    return get_peft_model(
        embedded.load_model(),
        InterpPromptConfig(task_type="CAUSAL_LM", tokenizer_name_or_path=embedded.MODEL_PATH, **start, **config),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = prompted()
    model.keep_label_bias(BIAS)
    model.save_pretrained(tmp_path)
    return tmp_path


def change(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    config[SETTINGS_KEY]["label_bias"] |= values
    (folder / "adapter_config.json").write_text(json.dumps(config))


def test_the_files_tell_the_numbers_beside_the_text(folder: Path) -> None:
    assert json.loads((folder / "prompt.json").read_text())["label_bias"] == BIAS.to_dict()
    card = (folder / "README.md").read_text()
    assert "this prompt needs 2 numbers besides its text" in card
    assert "terrible +0.75, great" in card.replace("&#43;", "+")
    assert "Verbalizer('{prompt} {text} It was', ['terrible', 'great'])" in card
    assert "add the numbers above" in card.replace("&#39;", "'")
    assert "label_bias" not in {*json.loads((folder / "adapter_config.json").read_text())} - {SETTINGS_KEY}


@pytest.mark.parametrize("asked", [{"chat": "user"}, {"first_token": True}])
def test_the_card_has_no_code_that_asks_otherwise(tmp_path: Path, asked: dict[str, Any]) -> None:
    model = prompted()
    model.keep_label_bias(replace(BIAS, **asked))
    model.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "this prompt needs 2 numbers besides its text" in card
    assert "Verbalizer(" not in card


def test_files_of_an_earlier_version_are_read(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    for name in ("chat", "first_token", "row_digests"):
        del config[SETTINGS_KEY]["label_bias"][name]
    (folder / "adapter_config.json").write_text(json.dumps(config))
    assert PeftModel.from_pretrained(embedded.load_model(), str(folder)).label_bias() == BIAS


@pytest.mark.parametrize("load", [PeftModel.from_pretrained, continue_training])
def test_they_come_back(folder: Path, load: Any) -> None:
    loaded = load(embedded.load_model(), str(folder))
    assert loaded.label_bias() == BIAS


def test_those_of_a_soft_prompt_are_bound_to_its_vectors(tmp_path: Path) -> None:
    model = prompted(projection_metric="none")
    model.keep_label_bias(BIAS)
    model.save_pretrained(tmp_path)
    assert PeftModel.from_pretrained(embedded.load_model(), str(tmp_path)).label_bias() == BIAS
    model.prompt_encoder["default"].latent.data += 1e-3
    with pytest.warns(UserWarning, match="is that of another prompt"):
        assert model.label_bias() is None


def test_a_prompt_that_moved_on_is_saved_without_them(tmp_path: Path) -> None:
    model = prompted()
    model.keep_label_bias(BIAS)
    encoder = model.prompt_encoder["default"]
    encoder.set_ids(encoder.ids.flip(0))
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())[SETTINGS_KEY].get("label_bias") is None
    assert json.loads((tmp_path / "prompt.json").read_text())["label_bias"] is None


def test_numbers_of_another_prompt_are_told_and_do_not_count(folder: Path) -> None:
    change(folder, prompt="0123456789abcdef", values=[-50.0, 50.0])
    with pytest.warns(UserWarning, match="the label bias in adapter_config.json is that of another prompt"):
        loaded = PeftModel.from_pretrained(embedded.load_model(), str(folder))
    with pytest.warns(UserWarning, match="is that of another prompt and is not used"):
        assert loaded.label_bias() is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"values": [0.5]}, "has 1 numbers for the label words"),
        ({"values": [0.5, "x"]}, "as many numbers"),
        ({"values": [1e300, 0.0]}, "must be finite"),
        ({"words": ["terrible", 7]}, "as many numbers"),
        ({"prompt": 7}, "does not say of which prompt"),
        ({"calibration": "magic"}, "it must be one of batch"),
    ],
)
def test_damaged_numbers_are_refused_when_the_adapter_is_loaded(folder: Path, values: Any, message: str) -> None:
    change(folder, **values)
    with pytest.raises(ValueError, match=message):
        PeftModel.from_pretrained(embedded.load_model(), str(folder))


def test_hostile_words_stay_text(tmp_path: Path) -> None:
    model = prompted()
    words = ("# heading", "[link](http://x.y) <script> | \u202e")
    model.keep_label_bias(LabelBias(words, (0.5, -0.5), "batch", 32, "{prompt} {text} <b>"))
    model.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    shown = card[card.index("Read as a classifier") :].partition("\n")[0]
    assert "<script>" not in shown
    assert "](http" not in re.sub("`[^`]*`", "", shown)  # code is no link
    assert "\u202e" not in card
