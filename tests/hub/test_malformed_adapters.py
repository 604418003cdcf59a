"""Adapters that are damaged or made up: whatever is in the files, the answer is a sentence, never a traceback."""

from __future__ import annotations

import copy
import json
import random
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from peft_interp import InterpPromptConfig, continue_training
from peft_interp.cli import main
from peft_interp.hub.facts import read_facts
from peft_interp.tuner.stored_config import SETTINGS_KEY, is_stored_prompt

Build = Callable[..., Any]
CONFIGS, TENSORS, FILES = 480, 120, 60  # cases of each
STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3_000_000, 2**63, 10**40, 0.5, -2.5, 1e308, float("nan"), float("inf")),
    *("", "x", "INTERP_PROMPT", "LORA", "\x00", "\ud800", "../../etc/passwd", "a" * 5000, "CAUSAL_LM", "none"),
    *([], [1], [-1], [[1]], ["x"], [None], [2**70], {}, {"a": 1}, {"a": {"b": []}}, [0.5], [True], [{}]),
)
ALLOWED = (ValueError, FloatingPointError, OSError)


@pytest.fixture
def adapter(gpt2: Build, tokenizer_dir: Path, tmp_path: Path) -> Path:
    base = gpt2()
    base.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(tokenizer_dir).save_pretrained(tmp_path / "base")
    base.name_or_path = str(tmp_path / "base")
    model: Any = get_peft_model(base, InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    model.use_prompt([9, 10, 11, 9])
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    return tmp_path / "adapter"


def in_words(adapter: Path, base: Any, capsys: pytest.CaptureFixture[str], case: Any) -> bool:
    """Load the adapter in every way; returns whether it was refused. Anything but a sentence fails the test."""
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ways: list[Callable[[], Any]] = [lambda: read_facts(adapter), lambda: continue_training(base, str(adapter))]
        if is_stored_prompt(json_of(adapter)):  # else PEFT's own code reads it first
            ways.append(lambda: PeftModel.from_pretrained(base, adapter))
        for way in ways:
            try:
                way()
            except ALLOWED as error:
                refused += bool(str(error).strip())  # an error without words does not count
            except Exception as error:
                pytest.fail(f"{case!r}: {type(error).__name__}: {error}")
    capsys.readouterr()
    assert main(["export", str(adapter), "--to", "text"]) in (0, 1), case
    assert "Traceback" not in capsys.readouterr().err
    return bool(refused)


def json_of(adapter: Path) -> dict[str, Any]:
    try:
        found = json.loads((adapter / "adapter_config.json").read_text())
    except (ValueError, OSError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def test_fuzzed_configs(adapter: Path, gpt2: Build, capsys: pytest.CaptureFixture[str]) -> None:
    config, draw, base = json_of(adapter), random.Random(15), gpt2()
    refused = 0
    for _ in range(CONFIGS):
        changed, case = copy.deepcopy(config), {}
        places = dict.fromkeys(config, changed) | dict.fromkeys(config[SETTINGS_KEY], changed[SETTINGS_KEY])
        for name in draw.sample(sorted(places), draw.choice((1, 1, 1, 2, 3))):
            case[name] = draw.choice((*STRANGE, "left out"))
            places[name][name] = case[name]
            if case[name] == "left out":
                del places[name][name]
        (adapter / "adapter_config.json").write_text(json.dumps(changed))
        refused += in_words(adapter, base, capsys, case)
    assert 0.5 * CONFIGS < refused < CONFIGS  # the fuzz breaks things, and not all of them


def test_fuzzed_tensors(adapter: Path, gpt2: Build, capsys: pytest.CaptureFixture[str]) -> None:
    tensors, draw, base = load_file(adapter / "adapter_model.safetensors"), random.Random(16), gpt2()
    strange: list[Callable[[torch.Tensor], torch.Tensor | None]] = [
        lambda t: None,
        lambda t: t.float() + 0.5,
        lambda t: t.bool(),
        lambda t: t[..., None].expand(*t.shape, 2).contiguous(),
        lambda t: t.flatten()[0].clone(),
        lambda t: t.flatten()[:0].clone(),
        lambda t: torch.cat([t.reshape(-1)] * 3),
        lambda t: -t - 5,
        lambda t: t * 10**6,
        lambda t: torch.full_like(t, float("nan")) if t.is_floating_point() else torch.full_like(t, 2**40),
        lambda t: t.to(torch.complex64),
        lambda t: t.half() if t.is_floating_point() else t.to(torch.uint8),
    ]
    refused = 0
    for _ in range(TENSORS):
        changed, name, number = dict(tensors), draw.choice(sorted(tensors)), draw.randrange(len(strange))
        made = strange[number](changed.pop(name))
        if made is not None:
            changed[name] = made
        save_file(changed, adapter / "adapter_model.safetensors")
        refused += in_words(adapter, base, capsys, (name, number))
    assert 0.3 * TENSORS < refused < TENSORS


def test_damaged_files(adapter: Path, gpt2: Build, capsys: pytest.CaptureFixture[str]) -> None:
    """Cut off, with bits turned, empty, of another kind, a header that promises gigabytes."""
    draw, base, refused = random.Random(17), gpt2(), 0
    names = ("adapter_config.json", "adapter_model.safetensors", "prompt.json", "prompt.txt", "prompt_report.json")
    (adapter / "prompt_report.json").write_text("{}")
    whole = {name: (adapter / name).read_bytes() for name in names}
    for _ in range(FILES):
        name = draw.choice(names)
        content = whole[name]
        place = draw.randrange(max(1, len(content)))
        flipped = content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
        header = struct.pack("<Q", 2**40) + content[8:]
        damaged = draw.choice((content[:place], flipped, b"", b"[1, 2]", b"\xff\xfe\x00", header, b"[" * 100_000))
        (adapter / name).write_bytes(damaged)
        refused += in_words(adapter, base, capsys, (name, damaged[:40]))
        (adapter / name).write_bytes(content)
    assert 0.2 * FILES < refused < FILES
