"""A study's README holds the tables of its own results, between two marks."""

from pathlib import Path

START, END = "<!-- results: start -->", "<!-- results: end -->"


def put_tables(readme: Path, tables: str) -> None:
    """Put the tables of what was run in place of those that stand there."""
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(START)
    readme.write_text(f"{before}{START}\n{tables}\n{END}{rest.split(END)[1]}", encoding="utf-8")
