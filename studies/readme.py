"""A study's README holds the tables of its own results, between two marks; texts in tables."""

from pathlib import Path

START, END = "<!-- results: start -->", "<!-- results: end -->"


def put_tables(readme: Path, tables: str) -> None:
    """Put the tables of what was run in place of those that stand there."""
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(START)
    readme.write_text(f"{before}{START}\n{tables}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def code(text: str, nothing: str = "(nothing)", most: int | None = None) -> str:
    """A text as code in a table's cell, on one line.

    Args:
        text: what it says.
        nothing: what stands for an empty text.
        most: characters that are shown; None for all.
    """
    plain = " ".join(text.split()).replace("`", "'").replace("|", "/")
    cut = plain if most is None or len(plain) <= most else f"{plain[:most]}..."
    return f"`{cut}`" if plain else nothing
