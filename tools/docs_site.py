"""Hooks of `mkdocs.yml`: the pages in `docs/` are read in the repository as well, where links may leave the folder."""

from __future__ import annotations

import re
from dataclasses import MISSING, Field, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
_PICTURE = re.compile(r"!\[([^\]]+)\]\(\.\./([^)#\s]+)\)")
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#\s]+)(?:#[^)\s]*)?\)")
_SETTINGS = re.compile(r"<!-- settings: ([\w.]+) -->")


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Pictures outside `docs/` that pages show go into the site."""
    pages = {file.src_uri: file.content_string for file in files.documentation_pages()}
    shown = {found[2]: page for page, text in pages.items() for found in _PICTURE.finditer(text)}
    for target, page in shown.items():
        files.append(File.generated(config, target, abs_src_path=str(_outside(target, page))))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """A page as the site shows it: changelog and settings filled in, files outside `docs/` named instead of linked.

    Args:
        markdown: the page's source.
        page: the page; its file's name counts.

    Raises:
        ValueError: a link to a file that does not exist.
    """
    name = page.file.src_uri
    if name == "changelog.md":
        markdown = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "](")
    markdown = _SETTINGS.sub(lambda found: settings_table(found[1]), markdown)
    markdown = _PICTURE.sub(r"![\1](\2)", markdown)
    return _OUTSIDE.sub(lambda found: _named(found, name), markdown)


def _named(found: re.Match[str], page: str) -> str:
    words, target = found.groups()
    _outside(target, page)
    return f"{words} (`{target}` in the repository)"


def _outside(target: str, page: str) -> Path:
    """A file of the repository that a page of the docs names."""
    if not (ROOT / target).exists():
        raise ValueError(f"{page} links to '../{target}', which is not there; mend the link.")
    return ROOT / target


def settings_table(path: str) -> str:
    """What a config of ours adds to its base class, or sets otherwise: name, default and help text of each field.

    Args:
        path: the class by its whole name.
    """
    module, _, name = path.rpartition(".")
    config = getattr(import_module(module), name)
    theirs = {field.name: field for base in reversed(config.__mro__) if not _is_ours(base) for field in _fields(base)}
    own = [field for field in fields(config) if field.name not in theirs or _differ(field, theirs[field.name])]
    rows = [f"| `{field.name}` | `{_default(field)}` | {_cell(field.metadata.get('help', ''))} |" for field in own]
    return "\n".join(["| setting | default | |", "|---|---|---|", *rows])


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "peft_interp"


def _fields(kind: type) -> tuple[Field[Any], ...]:
    return fields(kind) if hasattr(kind, "__dataclass_fields__") else ()  # type: ignore[arg-type]


def _differ(field: Field[Any], other: Field[Any]) -> bool:
    return field.metadata.get("help") != other.metadata.get("help")


def _default(field: Field[Any]) -> str:
    if field.default is not MISSING:
        return repr(getattr(field.default, "value", field.default))  # an enum's as it is written
    return repr(field.default_factory()) if field.default_factory is not MISSING else "needed"


def _cell(words: str) -> str:
    return " ".join(words.split()).replace("|", "\\|")
