"""From the name of an adapter to its files, tokenizer and model; nothing of a repository is run."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from peft import PeftConfig, PeftModel
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_utils import get_last_checkpoint

from peft_interp.base_model_name import loadable_name, public_name
from peft_interp.embedded import resolve
from peft_interp.hub.adapter_files import (
    CARD_FILE,
    CONFIG_FILE,
    FACTS_FILE,
    REPORT_FILE,
    TEXT_FILE,
    WEIGHTS_FILE,
    check_weights,
    checked_tensors,
    read_config,
    read_tensors,
)
from peft_interp.hub.saving import TOKENIZER_FILES, saved_tokenizer
from peft_interp.inference.named_model import load_named_model
from peft_interp.storage.atomic import finish_save
from peft_interp.tuner.initialization import has_words
from peft_interp.tuner.saved_adapter import MOST_TOKENS, check_names
from peft_interp.tuner.stored_config import PEFT_TYPE_NAME
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
        for place in (folder, folder.parent):
            finish_save(place)
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
    """An adapter for people: "me/prompt@v1/second"."""
    return f"{name}{f'@{revision}' if revision else ''}{f'/{_inside(subfolder).as_posix()}' if subfolder else ''}"


def _inside(subfolder: str | None) -> Path:
    """The way from the top to the subfolder.

    Raises:
        ValueError: it leads out.
    """
    inside = Path(subfolder or "")
    if inside.is_absolute() or ".." in inside.parts:
        raise ValueError(f"`--subfolder {subfolder}` must lie within the adapter's folder: 'second', say.")
    return inside


def base_of(folder: Path | None, wanted: str | None, downloaded: bool = False) -> str:
    """What to load as the base model.

    Args:
        folder: of the adapter; None where the user's choice is all there is.
        wanted: the user's choice.
        downloaded: the adapter comes from the Hub, so that its config's word is not the user's.

    Raises:
        ValueError: nothing is known, the recorded folder does not exist here, or a download names it.
    """
    if wanted:
        return resolve(wanted)
    name = loadable_name(read_config(folder).get("base_model_name_or_path")) if folder else None
    if not name:
        raise ValueError("the adapter does not say which base model it belongs to; name it with --base-model.")
    if public_name(name).kind == "local" and not Path(name).expanduser().exists():
        raise ValueError(f"the base model was the folder {name!r}, which is not here; name it with --base-model.")
    if downloaded and public_name(name).kind != "embedded":
        raise ValueError(
            f"the downloaded adapter names {name!r} as its base model, which is not loaded because a file says so; if "
            f"you want it, say `--base-model {name}`."
        )
    return name


def load_tokenizer(folder: Path | None, base: str | None, wanted: str | None) -> PreTrainedTokenizerBase:
    """The user's choice, else the base model's; where it has none, the one the adapter names, or one in its folder.

    Args:
        folder: of the adapter; None for a prompt that is a text.
        base: folder or hub name of the base model.
        wanted: the user's choice.

    Raises:
        ValueError: none can be loaded.
    """
    named = loadable_name(read_config(folder).get("tokenizer_name_or_path")) if folder else None
    names = [loadable_name(wanted)] if wanted else [base, named]
    problem: Exception | None = None
    for name in dict.fromkeys(filter(None, names)):
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            if has_words(tokenizer):
                return tokenizer
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            problem = error
    saved: PreTrainedTokenizerBase | None = None if wanted or folder is None else saved_tokenizer(folder)
    if saved is None:
        raise ValueError(f"no tokenizer can be loaded ({problem or 'none is named'}); name one with --tokenizer.")
    return saved


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
        with warnings.catch_warnings():  # of settings that another method does not have; what is wrong is said below
            warnings.filterwarnings("ignore", message="Unexpected keyword arguments")
            config = PeftConfig.from_pretrained(str(folder))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"PEFT cannot read the adapter's config, of type {plain.get('peft_type')!r} ({error}); ask for it anew."
        ) from None
    if not config.is_prompt_learning:
        raise ValueError(f"{str(folder)!r} is a {plain.get('peft_type')} adapter, {_NOT_PROMPTS}.")
    _check_files(folder, config)
    model = load_base(base, plain.get("task_type"), **_labels(folder)) if model is None else model
    try:
        return PeftModel.from_pretrained(model, str(folder)).eval()
    except (RuntimeError, KeyError, TypeError, IndexError, AttributeError) as error:
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
    auto = task.auto_class if task else "AutoModelForCausalLM"
    cuda = torch.cuda.is_available()
    try:
        model = load_named_model(base, auto, dtype="auto" if cuda else torch.float32, **options)
    except ValueError as error:
        raise ValueError(f"the base model: {error} Name it with --base-model.") from None
    return model.to("cuda" if cuda else "cpu")  # type: ignore[arg-type, no-any-return]


def _check_files(folder: Path, config: PeftConfig) -> None:
    """Refuse files that say one thing and hold another, before a model is loaded.

    Raises:
        ValueError: tensors that would overwrite the base model, or too long a prompt.
    """
    if read_config(folder).get("peft_type") == PEFT_TYPE_NAME:
        checked_tensors(folder)
        return
    tensors = read_tensors(folder)
    check_names(tensors, getattr(config, "modules_to_save", None), ours=False)
    length = getattr(config, "num_virtual_tokens", None)
    if not isinstance(length, int) or not 1 <= length <= MOST_TOKENS:
        raise ValueError(f"`num_virtual_tokens={length!r}` of the adapter must be 1 to {MOST_TOKENS:,}.")


def _labels(folder: Path) -> dict[str, int]:
    """How many labels a classifier has that was trained with the prompt."""
    for name, tensor in read_tensors(folder).items():
        if re.search(r"(classifier|score|out_proj)\.weight$", name) and tensor.dim() == 2:
            return {"num_labels": tensor.shape[0]}
    return {}


def local_base_note(folder: Path) -> str | None:
    """A word about a path of this machine that stands in the adapter's config, which PEFT wrote; None without one."""
    name = read_config(folder).get("base_model_name_or_path")
    if public_name(name).kind == "local" or (name and name.startswith("/")):
        return f"adapter_config.json names the base model by a path ({name}), which everybody sees once it is pushed."
    return None
