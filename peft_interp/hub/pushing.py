"""How a prompt goes to the Hub: a temporary folder is filled, its card brought up to date, and uploaded."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitInfo, HfApi
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from peft_interp.hub.adapter_files import (
    CARD_FILE,
    CONFIG_FILE,
    FACTS_FILE,
    REPORT_FILE,
    TEXT_FILE,
    WEIGHTS_FILE,
)
from peft_interp.hub.facts import read_facts
from peft_interp.hub.saving import TOKENIZER_FILES, saved_tokenizer, write_beside, write_card
from peft_interp.storage.atomic import finish_save, is_plain_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ADAPTER_FILES = (CONFIG_FILE, WEIGHTS_FILE, TEXT_FILE, FACTS_FILE, REPORT_FILE)
_NOT_ALWAYS = [REPORT_FILE, TEXT_FILE]


def push_adapter_folder(
    adapter: Path, repo_id: str, tokenizer: PreTrainedTokenizerBase | None = None, **options: Any
) -> CommitInfo:
    """Push a saved adapter without its base model: adapter, text, report and card, nothing else.

    Optimizer states, training arguments (a pickle) and checkpoints stay at home; the folder itself is not changed.

    Args:
        adapter: folder of an InterpPrompt adapter.
        repo_id: "user/name".
        tokenizer: as in `write_beside`.
        options: as in `push_staged`.

    Raises:
        ValueError: another adapter, or broken files.
    """

    def stage(folder: Path, location: str) -> None:
        for name in (*_ADAPTER_FILES, CARD_FILE):
            if (adapter / name).is_file() and not (folder / name).exists():  # a card from the Hub is newer
                shutil.copy(adapter / name, folder / name)
        reader = tokenizer or saved_tokenizer(adapter)
        write_beside(folder, reader)
        write_card(folder, {"": reader}, location=location)

    finish_save(adapter)
    _check_no_links(adapter)
    read_facts(adapter)  # complain before anything is made on the Hub
    return push_staged(stage, repo_id, **options)


def _check_no_links(adapter: Path) -> None:
    """Refuse files that are links: what they lead to would be sent along. Those of the Hub's cache lead into it.

    Raises:
        ValueError: naming the link.
    """
    for name in (*_ADAPTER_FILES, CARD_FILE, *TOKENIZER_FILES):
        if (adapter / name).is_symlink() and not is_plain_file(adapter, name):
            raise ValueError(
                f"{name!r} in {str(adapter)!r} is a link, and what it leads to is not sent; put the file itself there, "
                "or remove the link."
            )


def push_staged(
    stage: Callable[[Path, str], None],
    repo_id: str,
    private: bool | None = None,
    token: bool | str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    commit_description: str | None = None,
) -> CommitInfo:
    """Fill a temporary folder and push it with `huggingface_hub`.

    The repository's present card is put there first, so that what people wrote into it on the Hub stays.

    Args:
        stage: fills the folder; called with it and the repository's full name.
        repo_id: "user/name", or a name of one's own.
        private: when it is made; None: the Hub's default.
        token: None: the one that is logged in.
        revision: branch; made where it is missing.
        create_pr: open a pull request instead.
        commit_message: None: "Upload prompt".
        commit_description: more words.

    Returns:
        The `CommitInfo`.
    """
    api = HfApi(library_name="peft_interp", token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if revision is not None and not revision.startswith("refs/pr"):
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        try:
            card = Path(api.hf_hub_download(repo_id, CARD_FILE, revision=revision, force_download=True))
            shutil.copy(card, folder / CARD_FILE)
        except (EntryNotFoundError, LocalEntryNotFoundError):
            pass  # a new repository
        stage(folder, repo_id)
        return api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=commit_message or "Upload prompt",
            commit_description=commit_description,
            revision=revision,
            create_pr=create_pr,
            delete_patterns=_NOT_ALWAYS,  # an earlier prompt's, if this one has none
        )
