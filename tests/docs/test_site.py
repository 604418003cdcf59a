"""The site: every page has a place in it, it builds without a warning, and nothing of it is loaded from elsewhere."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mkdocs.config import load_config
from mkdocs.structure.files import File
from mkdocs.structure.pages import Page

from tools.docs_site import on_page_markdown

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stderr[-3000:]
    return folder


def test_every_page_of_the_folder_is_in_the_site(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert {path.stem for path in site.glob("*.html")} == pages | {"404", "search"} & {
        path.stem for path in site.glob("*.html")
    }
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    missing = [name for name in pages if not re.search(rf": {re.escape(name)}\.md$", nav, re.MULTILINE)]
    assert missing == []


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    for page in [*site.glob("*.html"), *site.rglob("*.css")]:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"""(?:src=|<link[^>]*href=|url\(|@import )["']?(https?:)?//[^"')\s]+""", text)
        assert loaded == [], page.name


def test_pictures_of_the_repository_are_in_the_site(site: Path) -> None:
    page = (site / "studies.html").read_text(encoding="utf-8")
    shown = re.findall(r'<img[^>]*src="([^"]+)"', page)
    assert sorted(shown) == ["studies/tradeoff/fronts.svg", "studies/tradeoff/smollm2/tradeoff.svg"]
    for target in shown:
        assert (site / target).read_bytes() == (ROOT / target).read_bytes()


def test_the_reference_shows_the_docstrings(site: Path) -> None:
    text = (site / "reference.html").read_text(encoding="utf-8")
    for words in ("InterpPromptConfig", "PromptSearchTrainer", "perplexity_weight", "ollama_modelfile", "Raises"):
        assert words in text
    assert "target_percentile" in text  # settings have their help texts
    assert "Weight of the prompt's NLL" in html.unescape(text)


def test_the_changelog_is_that_of_the_repository(site: Path) -> None:
    first = re.search(r"^- (.{20,60}?)[`*_:(]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert first is not None
    assert first[1].strip() in (site / "changelog.html").read_text(encoding="utf-8")


def test_links_out_of_the_folder_are_named_and_must_lead_somewhere() -> None:
    config = load_config(str(ROOT / "mkdocs.yml"), strict=True)
    page = Page(None, File("speed.md", str(ROOT / "docs"), str(ROOT / "outputs"), use_directory_urls=False), config)
    shown = on_page_markdown("[the licence](../LICENSE#terms) and [a page](speed.md)", page)
    assert shown == "the licence (`LICENSE` in the repository) and [a page](speed.md)"
    with pytest.raises(ValueError, match=r"speed.md links to '../GONE', which is not there"):
        on_page_markdown("[gone](../GONE)", page)
