"""What is written beside a saved adapter: text, facts, the report, the repository's card."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

from peft_interp.hub.adapter_files import (
    FACTS_FILE,
    REPORT_FILE,
    SAVED_FILES,
    is_ours,
    read_json,
    write_json,
)
from peft_interp.hub.facts import earlier_facts, read_facts, write_facts
from peft_interp.storage.atomic import files_together, is_plain_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from peft_interp.hub.card import CardEntry

logger = logging.getLogger(__name__)
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json")


def write_beside(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase | None,
    report: dict[str, Any] | None = None,
    card: bool = False,
) -> None:
    """Complete a saved adapter: text, facts, report; after a kill all are the old ones or the new ones.

    Args:
        folder: of an InterpPrompt adapter.
        tokenizer: writes the ids as text; None takes one that was saved in the folder.
        report: of this prompt; None keeps one that lies there for the same prompt and removes that of another.
        card: write the card of this one prompt as well.

    Raises:
        ValueError: broken files.
    """
    reader = tokenizer or saved_tokenizer(folder)
    with files_together(folder, SAVED_FILES) as work:
        fill_beside(work, reader, report)
        if card:
            write_card(work, {"": reader})


def fill_beside(folder: Path, tokenizer: PreTrainedTokenizerBase | None, report: dict[str, Any] | None) -> None:
    """`write_beside` within a folder that nobody else reads yet."""
    earlier = earlier_facts(folder).get("digest")
    facts = read_facts(folder, tokenizer)
    write_facts(folder, facts)
    if report is not None:
        write_json(folder / REPORT_FILE, report)
    elif earlier != facts.digest and (folder / REPORT_FILE).exists():
        logger.warning("%s is removed: it was the report of another prompt", REPORT_FILE)
        (folder / REPORT_FILE).unlink()


def saved_tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer that Trainer saves beside an adapter, or None; links are not followed."""
    if not all(is_plain_file(folder, name) for name in TOKENIZER_FILES):
        return None
    from transformers import AutoTokenizer

    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        return found
    except (OSError, ValueError, KeyError, ImportError) as error:
        logger.info("the tokenizer in %s cannot be loaded: %s", folder, error)
        return None


def card_entry(folder: Path, name: str = "", tokenizer: PreTrainedTokenizerBase | None = None) -> CardEntry:
    """One prompt of a repository as its card tells it.

    Args:
        folder: of the repository.
        name: of the adapter's folder in it.
        tokenizer: the base model's; without one the card has no text.
    """
    here = folder / name if name else folder
    from peft_interp.hub.card import CardEntry  # with the reports, only where a card is written

    return CardEntry(name, read_facts(here, tokenizer), folder_report(here))


def folder_report(folder: Path) -> dict[str, Any] | None:
    """The report that lies beside an adapter; None where there is none, or a broken one."""
    try:
        return read_json(folder / REPORT_FILE)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("the report beside the adapter cannot be read: %s", error)
        return None


def write_card(
    folder: Path,
    names: Mapping[str, Any | None],
    peft_update: Callable[[], None] | None = None,
    location: str | None = None,
    tags: Sequence[str] = (),
) -> None:
    """The repository's `README.md`; see `update_card`.

    Args:
        folder: of the repository.
        names: folders of its readable prompts, the main one first, and who reads them, the base model's tokenizer;
            those that are not saved there are left out.
        peft_update: PEFT's own update.
        location: hub name.
        tags: more tags.
    """
    from peft_interp.hub.card import update_card

    saved = {name: reader for name, reader in names.items() if is_ours(folder / name if name else folder)}
    entries = [card_entry(folder, name, reader) for name, reader in saved.items()]
    update_card(folder, entries, peft_update, location, tags)


def report_beside(adapter: str, **hub_options: Any) -> tuple[dict[str, Any] | None, str | None]:
    """The report stored beside an adapter that is loaded, and the digest of its prompt; JSON, nothing is run.

    Args:
        adapter: folder or hub name.
        hub_options: `subfolder`, `revision`, `token`, `cache_dir`.

    Returns:
        Two times None where there is no report.
    """
    folder = Path(adapter, hub_options.get("subfolder") or "")
    if folder.is_dir():
        return folder_report(folder), earlier_facts(folder).get("digest")
    try:
        report, facts = (hf_hub_download(adapter, name, **hub_options) for name in (REPORT_FILE, FACTS_FILE))
        return read_json(Path(report)), read_json(Path(facts)).get("digest")
    except (EntryNotFoundError, LocalEntryNotFoundError):
        return None, None
    except (OSError, ValueError, HfHubHTTPError) as error:
        logger.info("no report is read for %s: %s", adapter, error)
        return None, None
