"""From the name of an adapter to its files, tokenizer and model; nothing of a repository is run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from peft import PeftConfig, PeftModel
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_utils import get_last_checkpoint

from peft_interp.base_model_name import EMBEDDED, EMBEDDED_FOLDER, loadable_name, public_name
from peft_interp.hub.adapter_files import (
    CARD_FILE,
    CONFIG_FILE,
    FACTS_FILE,
    REPORT_FILE,
    TEXT_FILE,
    WEIGHTS_FILE,
    check_weights,
    read_config,
    read_tensors,
)
from peft_interp.hub.saving import TOKENIZER_FILES, saved_tokenizer
from peft_interp.tuner.task_types import prompt_task

_WANTED = (CONFIG_FILE, WEIGHTS_FILE, TEXT_FILE, FACTS_FILE, REPORT_FILE, CARD_FILE, *TOKENIZER_FILES)
_NOT_PROMPTS = "which has no prompt to read; this works for prompt tuning and its relatives"


def adapter_folder(name: str, revision: str | None = None, subfolder: str | None = None) -> Path:
    """The adapter's files on this machine: the folder, or a download of JSON, text and safetensors files only.

    Args:
        name: folder or hub name.
        revision: branch, tag or commit on the Hub; None: the main branch.
        subfolder: of the adapter within it; None: its top.

    Raises:
        ValueError: neither a folder nor a hub name, or nothing of that name can be reached.
    """
    inside, path = _inside(subfolder), Path(name)
    if path.exists() or name.startswith(("/", ".", "~")):
        if revision is not None:
            raise ValueError(f"`--revision {revision}` is for the Hub, but {name!r} is a folder here; leave it out.")
        folder = path.expanduser() / inside
        if not (folder / CONFIG_FILE).is_file():
            raise ValueError(
                f"{shown_name(name, None, subfolder)!r} is no adapter folder (there is no {CONFIG_FILE} in "
                f"it{_newest_checkpoint(folder)})."
            )
        return folder
    shown = shown_name(name, revision, subfolder)
    try:
        wanted = [(inside / file).as_posix() for file in _WANTED]
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=wanted)) / inside
    except HFValidationError:
        raise ValueError(f"{name!r} is neither a folder here nor a hub name; check the path.") from None
    except LocalEntryNotFoundError:
        raise ValueError(
            f"{name!r} is no folder here, and the Hub cannot be reached; check path and network."
        ) from None
    except HfHubHTTPError as error:
        raise ValueError(f"{shown!r} is no folder here, and not on the Hub for you: {error}") from None
    if not (folder / CONFIG_FILE).is_file():
        raise ValueError(f"the repository {shown!r} holds no adapter (there is no {CONFIG_FILE} in it).")
    return folder


def _newest_checkpoint(folder: Path) -> str:
    """A word about the adapter that a Trainer left below the folder; "" without one."""
    newest = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    return f"; name its newest checkpoint, {newest!r}" if newest and (Path(newest) / CONFIG_FILE).is_file() else ""


def shown_name(name: str, revision: str | None = None, subfolder: str | None = None) -> str:
    """An adapter for people: "me/prompt@v1/portable"."""
    return f"{name}{f'@{revision}' if revision else ''}{f'/{_inside(subfolder).as_posix()}' if subfolder else ''}"


def _inside(subfolder: str | None) -> Path:
    """The way from the top to the subfolder.

    Raises:
        ValueError: it leads out.
    """
    inside = Path(subfolder or "")
    if inside.is_absolute() or ".." in inside.parts:
        raise ValueError(f"`--subfolder {subfolder}` must lie within the adapter's folder: 'portable', say.")
    return inside


def base_of(folder: Path | None, wanted: str | None) -> str:
    """What to load as the base model.

    Args:
        folder: of the adapter; None where the user's choice is all there is.
        wanted: the user's choice.

    Raises:
        ValueError: nothing is known, or the recorded folder does not exist here.
    """
    if wanted:
        return str(EMBEDDED_FOLDER) if wanted == EMBEDDED else wanted
    name = loadable_name(read_config(folder).get("base_model_name_or_path")) if folder else None
    if not name:
        raise ValueError("the adapter does not say which base model it belongs to; name it with --base-model.")
    if public_name(name).kind == "local" and not Path(name).expanduser().exists():
        raise ValueError(f"the base model was the folder {name!r}, which is not here; name it with --base-model.")
    return name


def load_tokenizer(folder: Path | None, base: str | None, wanted: str | None) -> PreTrainedTokenizerBase:
    """The user's choice, else the one the adapter names, the base model's, or one saved in the folder.

    Args:
        folder: of the adapter; None for a prompt that is a text.
        base: folder or hub name of the base model.
        wanted: the user's choice.

    Raises:
        ValueError: none can be loaded.
    """
    named = loadable_name(read_config(folder).get("tokenizer_name_or_path")) if folder else None
    names = [loadable_name(wanted)] if wanted else [named, base]
    problem: Exception | None = None
    for name in dict.fromkeys(filter(None, names)):
        try:
            return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        except (OSError, ValueError, KeyError, ImportError) as error:
            problem = error
    tokenizer = None if wanted or folder is None else saved_tokenizer(folder)
    if tokenizer is None:
        raise ValueError(f"no tokenizer can be loaded ({problem or 'none is named'}); name one with --tokenizer.")
    return tokenizer


def load_adapter(folder: Path, base: str, model: PreTrainedModel | None = None) -> PeftModel:
    """Base model with the prompt, ready to be read.

    Args:
        folder: of the adapter.
        base: folder or hub name of the base model.
        model: the base model, where it is loaded already.

    Raises:
        ValueError: no prompt adapter, weights that are missing or a pickle, or a base model that does not fit.
    """
    plain = read_config(folder)
    check_weights(folder)
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (KeyError, TypeError) as error:
        raise ValueError(f"PEFT does not know the adapter's type {plain.get('peft_type')!r} ({error}).") from None
    if not config.is_prompt_learning:
        raise ValueError(f"{str(folder)!r} is a {plain.get('peft_type')} adapter, {_NOT_PROMPTS}.")
    model = load_base(base, plain.get("task_type"), **_labels(folder)) if model is None else model
    try:
        return PeftModel.from_pretrained(model, str(folder)).eval()
    except RuntimeError as error:
        raise ValueError(f"the adapter does not fit the base model {base!r}: {error}") from None


def load_base(base: str, task_type: str | None = None, **options: Any) -> PreTrainedModel:
    """The base model of a task, on the accelerator where there is one, in fp32 on a CPU.

    Args:
        base: folder or hub name.
        task_type: PEFT's; None for a causal language model.
        options: of `from_pretrained`.

    Raises:
        ValueError: it cannot be loaded.
    """
    task = prompt_task(task_type)
    auto = getattr(transformers, task.auto_class if task else "AutoModelForCausalLM")
    cuda = torch.cuda.is_available()
    options = {"dtype": "auto" if cuda else torch.float32, "trust_remote_code": False, **options}
    try:
        model: PreTrainedModel = auto.from_pretrained(base, **options)
    except OSError as error:
        raise ValueError(f"the base model {base!r} cannot be loaded ({error}); name it with --base-model.") from None
    return model.to("cuda" if cuda else "cpu")  # type: ignore[arg-type]


def _labels(folder: Path) -> dict[str, int]:
    """How many labels a classifier has that was trained with the prompt."""
    for name, tensor in read_tensors(folder).items():
        if re.search(r"(classifier|score|out_proj)\.weight$", name):
            return {"num_labels": tensor.shape[0]}
    return {}


def local_base_note(folder: Path) -> str | None:
    """A word about a path of this machine that stands in the adapter's config, which PEFT wrote; None without one."""
    name = read_config(folder).get("base_model_name_or_path")
    if public_name(name).kind == "local" or (name and name.startswith("/")):
        return f"adapter_config.json names the base model by a path ({name}), which everybody sees once it is pushed."
    return None
