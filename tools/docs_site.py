"""Hooks of `mkdocs.yml`: the pages in `docs/` are read in the repository as well, where links may leave the folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#\s]+)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """A page as the site shows it: the changelog filled in, and files outside `docs/` named instead of linked.

    Args:
        markdown: the page's source.
        page: the page; its file's name counts.

    Raises:
        ValueError: a link to a file that does not exist.
    """
    name = page.file.src_uri
    if name == "changelog.md":
        markdown = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "](")
    return _OUTSIDE.sub(lambda found: _named(found, name), markdown)


def _named(found: re.Match[str], page: str) -> str:
    words, target = found.groups()
    if not (ROOT / target).exists():
        raise ValueError(f"{page} links to '../{target}', which is not there; mend the link.")
    return f"{words} (`{target}` in the repository)"
