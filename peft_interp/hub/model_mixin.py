"""`PromptFilesMixin`: what a model with readable prompts saves, says in its card, and pushes to the Hub."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft import PeftModel

from peft_interp.config import InterpPromptConfig
from peft_interp.hub import model_files

if TYPE_CHECKING:
    Base = PeftModel
else:
    Base = object


class PromptFilesMixin(Base):
    """Stands before a PEFT model class; adapters of other configs are saved and pushed as PEFT does it."""

    if TYPE_CHECKING:

        def _encoder(self, adapter_name: str | None) -> Any: ...

    def attach_report(self, report: Any, adapter_name: str | None = None) -> None:
        """Keep a `PromptReport` with the prompt it is about: it is saved beside the adapter and shown in its card.

        Raises:
            TypeError: no report.
            ValueError: it is about other tokens than the prompt holds now.
        """
        encoder = self._encoder(adapter_name)
        self._reports()[adapter_name or self.active_adapter] = model_files.attach(report, encoder)

    def attached_report(self, adapter_name: str | None = None) -> dict[str, Any] | None:
        """The report as a dictionary; None where none is attached, or once the prompt has changed."""
        report, digest = self._reports().get(adapter_name or self.active_adapter, (None, None))
        return report if digest == model_files.encoder_digest(self._encoder(adapter_name)) else None

    def load_adapter(self, model_id: Any, adapter_name: str, *args: Any, **kwargs: Any) -> Any:
        """As PEFT's; a report stored beside the adapter comes with it."""
        loaded = super().load_adapter(model_id, adapter_name, *args, **kwargs)
        self._reports().pop(adapter_name, None)
        readable = adapter_name in self._readable_names()
        stored = model_files.stored_report(model_id, self._encoder(adapter_name), kwargs) if readable else None
        if stored is not None:
            self._reports()[adapter_name] = stored
        return loaded

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """As PEFT's, always as safetensors; beside a readable prompt its text, a copy for plain PEFT, and a card."""
        call = inspect.signature(super().save_pretrained).bind(save_directory, *args, **kwargs)
        call.apply_defaults()
        saved = [name for name in self._readable_names() if name in (call.arguments["selected_adapters"] or [name])]
        call.arguments["safe_serialization"] |= bool(saved)  # a pickle could run code where it is loaded
        self.__dict__["_card_waits"] = bool(saved)  # PEFT asks for the card before anything is saved
        try:
            super().save_pretrained(*call.args, **call.kwargs)
        finally:
            self.__dict__["_card_waits"] = False
        if saved and call.arguments["is_main_process"]:
            model_files.save_beside(self, Path(save_directory), saved)
            self._write_card(Path(save_directory))

    def create_or_update_model_card(self, output_dir: Any) -> None:
        """As PEFT's, with the prompt in front; tags, results and text that others wrote are kept."""
        if not self._readable_names():
            super().create_or_update_model_card(output_dir)
        elif not self.__dict__.get("_card_waits"):
            model_files.complete(Path(output_dir), self._readable_names())
            self._write_card(Path(output_dir))

    def push_to_hub(self, repo_id: str, *, tags: Any = None, max_shard_size: Any = None, **options: Any) -> Any:
        """As `save_pretrained`, to the Hub; text that people wrote into the card there is kept.

        Args:
            repo_id: "user/name".
            tags: more tags for the card.
            max_shard_size: not used, a prompt is small.
            options: `private`, `token`, `revision`, `create_pr`, `commit_message`, `commit_description`.
        """
        if names := self._readable_names():
            return model_files.push_model(self, repo_id, names, tags, options)
        sharding = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
        return super().push_to_hub(repo_id, tags=tags, **sharding, **options)

    def _write_card(self, folder: Path) -> None:
        model_files.save_card(
            folder,
            self._readable_names(),
            lambda: super(PromptFilesMixin, self).create_or_update_model_card(str(folder)),
        )

    def _readable_names(self) -> list[str]:
        return [name for name, config in self.peft_config.items() if isinstance(config, InterpPromptConfig)]

    def _reports(self) -> dict[str, Any]:
        return self.__dict__.setdefault("_attached_reports", {})
