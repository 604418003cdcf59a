"""Saving, cards and pushing, as a model with readable prompts does them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from peft_interp.hub.adapter_files import digest_of, is_ours
from peft_interp.hub.pushing import push_staged
from peft_interp.hub.saving import report_beside, write_beside, write_card
from peft_interp.hub.scores import plain_report

# Trainer resumes every subfolder of a checkpoint that holds an adapter as one more adapter of the model
_CHECKPOINT = re.compile(r"checkpoint-\d+")
_HUB_OPTIONS = ("subfolder", "revision", "token", "cache_dir")
Attached = tuple[dict[str, Any], str]


def encoder_digest(encoder: Any) -> str:
    """Recognises the prompt that the encoder holds now."""
    prompt = encoder.prompt()
    return digest_of(prompt.ids.tolist(), None if encoder.config.projects else prompt.vectors)


def attach(report: Any, encoder: Any) -> Attached:
    """A report with the digest of the prompt it is about.

    Raises:
        TypeError: no report.
        ValueError: the report of another prompt.
    """
    plain, ids = plain_report(report), encoder.prompt().ids.tolist()
    about = [token["id"] for token in plain["reading"]["tokens"]]
    same = about == ids if encoder.config.projects else len(about) == len(ids)  # near vectors, a matter of the filter
    if not same:
        raise ValueError(f"the report is about the tokens {about}, the prompt now holds {ids}; report on it again.")
    return plain, encoder_digest(encoder)


def stored_report(adapter: Any, encoder: Any, options: dict[str, Any]) -> Attached | None:
    """The report beside a loaded adapter, if it is about the prompt that was loaded.

    Args:
        adapter: folder or hub name.
        encoder: what was loaded.
        options: of the loading call.
    """
    known = {name: options[name] for name in _HUB_OPTIONS if options.get(name) is not None}
    report, digest = report_beside(str(adapter), **known)
    return (report, digest) if report is not None and digest == encoder_digest(encoder) else None


def folder_of(adapter_name: str) -> str:
    """Where PEFT puts an adapter within the folder it is given."""
    return "" if adapter_name == "default" else adapter_name


def save_beside(model: Any, folder: Path, adapter_names: Iterable[str]) -> None:
    """Complete the folders of saved adapters.

    Args:
        model: with readable prompts.
        folder: given to `save_pretrained`.
        adapter_names: those that were saved, ours only.
    """
    for name in adapter_names:
        tokenizer = _tokenizer_of(model.prompt_encoder[name])
        write_beside(folder / folder_of(name), tokenizer, model.attached_report(name), _wants_portable(folder))


def _tokenizer_of(encoder: Any) -> Any | None:
    """None where it cannot be loaded any more: a prompt can be saved without its text."""
    try:
        return encoder.tokens.tokenizer
    except (OSError, ValueError):
        return None


def save_card(
    folder: Path, adapter_names: Iterable[str], peft_update: Callable[[], None] | None = None, **options: Any
) -> None:
    """The card of what is saved in the folder, "default" first.

    Args:
        folder: of the repository.
        adapter_names: readable prompts of the model.
        peft_update: PEFT's own update.
        options: as in `write_card`.
    """
    names = sorted((folder_of(name) for name in adapter_names), key=lambda name: (name != "", name))
    write_card(folder, names, peft_update, **options)


def complete(folder: Path, adapter_names: Iterable[str]) -> None:
    """Write what is missing beside adapters whose own files are there, when only the card is asked for.

    Trainer saves the tokenizer behind the model, so that at the first save of a model whose tokenizer is named nowhere
    the text could not be written yet.
    """
    for name in adapter_names:
        here = folder / folder_of(name)
        if is_ours(here):
            write_beside(here, None, portable=_wants_portable(folder))


def _wants_portable(folder: Path) -> bool:
    return _CHECKPOINT.fullmatch(folder.name) is None


def push_model(model: Any, repo_id: str, adapter_names: list[str], tags: Any, options: dict[str, Any]) -> Any:
    """Push a model through its own `save_pretrained`, so that the card is its own.

    Args:
        model: with readable prompts.
        repo_id: "user/name".
        adapter_names: readable prompts of the model.
        tags: more tags for the card.
        options: as in `push_staged`.
    """
    wanted = [tags] if isinstance(tags, str) else list(tags or ())

    def stage(folder: Path, location: str) -> None:
        model.save_pretrained(str(folder))
        save_card(folder, adapter_names, location=location, tags=wanted)

    return push_staged(stage, repo_id, **options)
