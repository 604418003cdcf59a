"""The long description: the README, with what only leads somewhere in the repository named and no longer linked.

All else is in pyproject.toml.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import setup

README = Path(__file__).parent / "README.md"
_RELATIVE = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://)([^)\s]+)\)")


def without_relative_links(text: str) -> str:
    """A README for a page outside the repository: relative links become their words, code stays as it is."""
    parts = re.split(r"(^```.*?^```$|`[^`\n]+`)", text, flags=re.DOTALL | re.MULTILINE)
    parts[::2] = [_RELATIVE.sub(lambda found: "" if found[1] else found[2], part) for part in parts[::2]]
    return "".join(parts)


if __name__ == "__main__":
    setup(
        long_description=without_relative_links(README.read_text(encoding="utf-8")),
        long_description_content_type="text/markdown",
    )
