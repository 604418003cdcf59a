"""Saving, cards and pushing, as a model with readable prompts does them."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft import PeftModel

from peft_interp.hub.adapter_files import SAVED_FILES, is_ours, keep_own_tensors, read_config
from peft_interp.hub.facts import contradictions, read_facts
from peft_interp.hub.pushing import push_staged
from peft_interp.hub.saving import fill_beside, report_beside, saved_tokenizer, write_card
from peft_interp.storage.atomic import files_together, finish_save
from peft_interp.tuner.config import InterpPromptConfig
from peft_interp.tuner.embedding import InterpPromptEmbedding, encoder_of

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo
    from transformers import PreTrainedTokenizerBase

    from peft_interp.report.prompt_report import PromptReport

    Base = PeftModel
else:
    Base = object

_HUB_OPTIONS = ("subfolder", "revision", "token", "cache_dir")
Attached = tuple[dict[str, Any], str]


def attach(report: PromptReport | Mapping[str, Any], encoder: InterpPromptEmbedding) -> Attached:
    """A report with the digest of the prompt it is about.

    Raises:
        TypeError: no report.
        ValueError: the report of another prompt.
    """
    from peft_interp.hub.scores import plain_report

    plain, ids = plain_report(report), encoder.prompt().ids.tolist()
    about = _tokens_of(plain)
    same = about == ids if encoder.config.projects else len(about) == len(ids)  # near vectors, a matter of the filter
    if not same:
        raise ValueError(f"the report is about the tokens {about}, the prompt now holds {ids}; report on it again.")
    return plain, encoder.digest()


def _tokens_of(report: dict[str, Any]) -> list[int]:
    return [token["id"] for token in report["reading"]["tokens"]]


def stored_report(
    adapter: str | os.PathLike[str], encoder: InterpPromptEmbedding, options: dict[str, Any]
) -> Attached | None:
    """The report beside a loaded adapter, if it is about the prompt that was loaded.

    Args:
        adapter: folder or hub name.
        encoder: what was loaded.
        options: of the loading call.
    """
    known = {name: options[name] for name in _HUB_OPTIONS if options.get(name) is not None}
    report, digest = report_beside(str(adapter), **known)
    if report is None or digest is None or digest != encoder.digest() or _is_left_over(report, encoder):
        return None
    return report, digest


def _is_left_over(report: dict[str, Any], encoder: InterpPromptEmbedding) -> bool:
    """A report of other tokens, which a push of Trainer's leaves on the Hub: it deletes nothing there."""
    try:
        return encoder.config.projects and _tokens_of(report) != encoder.prompt().ids.tolist()
    except (KeyError, TypeError):  # of another version
        return False


_FILLED_IN = ("inference_mode", "modules_to_save", "token_dim", "num_layers", "num_attention_heads")


def check_read_again(folder: Path, config: InterpPromptConfig) -> None:
    """Refuse a config that was read before an interrupted save was finished, where it is another one now.

    Args:
        folder: of the adapter, whose save is finished.
        config: what was read.

    Raises:
        ValueError: it is another one.
    """
    now, then = read_config(folder), config.to_dict()
    if any(now[name] != then[name] for name in now.keys() & then.keys() - set(_FILLED_IN) if now[name] is not None):
        raise ValueError(f"a save into {str(folder)!r} was interrupted; it is finished now, so load it again.")


def check_folder(folder: Path) -> None:
    """Warn of files beside a loaded prompt that tell of another one."""
    if problems := contradictions(folder, read_facts(folder)):
        warnings.warn(
            f"beside the prompt in {str(folder)!r}: {'; '.join(problems)}. Only the weights count; save the adapter "
            "again to set the rest right.",
            stacklevel=4,
        )


def folder_of(adapter_name: str) -> str:
    """Where PEFT puts an adapter within the folder it is given."""
    return "" if adapter_name == "default" else adapter_name


def saved_names(adapter_names: Iterable[str]) -> list[str]:
    """The files that a save of these adapters writes, as paths within the folder."""
    folders = {"", *(folder_of(name) for name in adapter_names)}
    return [f"{folder}/{name}".lstrip("/") for folder in sorted(folders) for name in SAVED_FILES]


def save_beside(model: PeftModel, work: Path, folder: Path, adapter_names: Iterable[str]) -> None:
    """Complete the folders of saved adapters.

    Args:
        model: with readable prompts.
        work: where they were written.
        folder: given to `save_pretrained`, where they will lie.
        adapter_names: those that were saved, ours only.
    """
    for name in adapter_names:
        reader = _reader(model, folder, name)
        keep_own_tensors(work / folder_of(name))
        fill_beside(work / folder_of(name), reader, model.attached_report(name))


def _tokenizer_of(encoder: InterpPromptEmbedding) -> PreTrainedTokenizerBase | None:
    """None where it cannot be loaded any more: a prompt can be saved without its text."""
    try:
        return encoder.tokens.tokenizer
    except (OSError, ValueError):
        return None


def save_card(
    model: PeftModel, work: Path, folder: Path, peft_update: Callable[[], None] | None = None, **options: Any
) -> None:
    """The card of what is saved in the folder, "default" first.

    Args:
        model: with readable prompts.
        work: where the repository's files are written.
        folder: where they will lie.
        peft_update: PEFT's own update.
        options: as in `write_card`.
    """
    names = sorted(model._readable_names(), key=lambda name: (folder_of(name) != "", name))
    write_card(work, {folder_of(name): _reader(model, folder, name) for name in names}, peft_update, **options)


def _reader(model: PeftModel, folder: Path, name: str) -> PreTrainedTokenizerBase | None:
    """Who turns an adapter's ids into text: the base model's tokenizer, else one saved beside the adapter."""
    return _tokenizer_of(encoder_of(model, name)) or saved_tokenizer(folder / folder_of(name))


def complete(model: PeftModel, work: Path, folder: Path, adapter_names: Iterable[str]) -> None:
    """Write what is missing beside adapters whose own files are there, when only the card is asked for.

    Trainer saves the tokenizer after the model, so that at the first save of a model whose tokenizer is named nowhere
    the text could not be written yet.
    """
    for name in adapter_names:
        if is_ours(work / folder_of(name)):
            fill_beside(work / folder_of(name), _reader(model, folder, name), None)


def push_model(model: PeftModel, repo_id: str, tags: str | Iterable[str] | None, options: dict[str, Any]) -> CommitInfo:
    """Push a model through its own `save_pretrained`, so that the card is its own.

    Args:
        model: with readable prompts.
        repo_id: "user/name".
        tags: more tags for the card.
        options: as in `push_staged`.
    """
    wanted = [tags] if isinstance(tags, str) else list(tags or ())

    def stage(folder: Path, location: str) -> None:
        model.save_pretrained(str(folder))
        save_card(model, folder, folder, location=location, tags=wanted)

    return push_staged(stage, repo_id, **options)


class PromptFilesMixin(Base):
    """Stands before a PEFT model class; adapters of other configs are saved and pushed as PEFT does it."""

    if TYPE_CHECKING:

        def _encoder(self, adapter_name: str | None) -> InterpPromptEmbedding: ...

        def _forget_old_bias(self, adapter_name: str) -> None: ...

    def attach_report(self, report: PromptReport | Mapping[str, Any], adapter_name: str | None = None) -> None:
        """Keep a `PromptReport` with the prompt it is about: it is saved beside the adapter and shown in its card.

        Raises:
            TypeError: no report.
            ValueError: it is about other tokens than the prompt holds now.
        """
        encoder = self._encoder(adapter_name)
        self._reports()[adapter_name or self.active_adapter] = attach(report, encoder)

    def attached_report(self, adapter_name: str | None = None) -> dict[str, Any] | None:
        """The report as a dictionary; None where none is attached, or once the prompt has changed."""
        report, digest = self._reports().get(adapter_name or self.active_adapter, (None, None))
        return report if digest == self._encoder(adapter_name).digest() else None

    def load_adapter(self, model_id: str | os.PathLike[str], adapter_name: str, *args: Any, **kwargs: Any) -> Any:
        """As PEFT's; a report stored beside the adapter comes with it, and what contradicts the prompt is warned of."""
        folder = Path(str(model_id), kwargs.get("subfolder") or "")
        finished = sum(finish_save(place) for place in (folder, folder.parent) if place.is_dir())
        if finished and adapter_name in self._readable_names() and is_ours(folder):  # before its weights are compared
            check_read_again(folder, self._encoder(adapter_name).config)
        loaded = super().load_adapter(model_id, adapter_name, *args, **kwargs)
        self._reports().pop(adapter_name, None)
        readable = adapter_name in self._readable_names()
        if readable and is_ours(folder):
            check_folder(folder)
        stored = stored_report(model_id, self._encoder(adapter_name), kwargs) if readable else None
        if stored is not None:
            self._reports()[adapter_name] = stored
        return loaded

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """As PEFT's; beside a readable prompt its text and a card.

        With `safe_serialization=False` the pickle that this asks for is written beside the safetensors, which are what
        is read here: a pickle could run code where it is loaded.
        """
        call = inspect.signature(super().save_pretrained).bind(save_directory, *args, **kwargs)
        call.apply_defaults()
        saved = [name for name in self._readable_names() if name in (call.arguments["selected_adapters"] or [name])]
        if not saved or not call.arguments["is_main_process"] or Path(save_directory).is_file():
            return super().save_pretrained(*call.args, **call.kwargs)
        formats = dict.fromkeys((True, bool(call.arguments["safe_serialization"])))  # True: safetensors
        folder = Path(save_directory)
        for name in saved:
            self._forget_old_bias(name)
        with files_together(folder, saved_names(saved)) as work:
            call.arguments["save_directory"] = str(work)
            self.__dict__["_card_waits"] = True  # PEFT asks for the card before anything is saved
            try:
                for call.arguments["safe_serialization"] in formats:
                    super().save_pretrained(*call.args, **call.kwargs)
            finally:
                self.__dict__["_card_waits"] = False
            save_beside(self, work, folder, saved)
            self._write_card(work, folder)
        return None

    def create_or_update_model_card(self, output_dir: Any) -> None:
        """As PEFT's, with the prompt in front; tags, results and text that others wrote are kept."""
        if not self._readable_names():
            super().create_or_update_model_card(output_dir)
        elif not self.__dict__.get("_card_waits"):
            folder, names = Path(output_dir), self._readable_names()
            with files_together(folder, saved_names(names)) as work:
                complete(self, work, folder, names)
                self._write_card(work, folder)

    def push_to_hub(self, repo_id: str, *, tags: Any = None, max_shard_size: Any = None, **options: Any) -> Any:
        """As `save_pretrained`, to the Hub; text that people wrote into the card there is kept.

        Args:
            repo_id: "user/name".
            tags: more tags for the card.
            max_shard_size: not used, a prompt is small.
            options: `private`, `token`, `revision`, `create_pr`, `commit_message`, `commit_description`.
        """
        if self._readable_names():
            return push_model(self, repo_id, tags, options)
        sharding = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
        return super().push_to_hub(repo_id, tags=tags, **sharding, **options)

    def _write_card(self, work: Path, folder: Path) -> None:
        save_card(self, work, folder, lambda: super(PromptFilesMixin, self).create_or_update_model_card(str(work)))

    def _readable_names(self) -> list[str]:
        return [name for name, config in self.peft_config.items() if isinstance(config, InterpPromptConfig)]

    def _reports(self) -> dict[str, Any]:
        return self.__dict__.setdefault("_attached_reports", {})
