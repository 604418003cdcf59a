"""Readers of labelled rows: pairs of a text and a class number."""

import json
from pathlib import Path

Labelled = list[tuple[str, int]]

PACKAGE_DATA = Path(__file__).parents[2] / "peft_interp" / "embedded" / "data"


def read_tsv(path: Path) -> Labelled:
    """Rows of a `sentence<TAB>label` file with a heading line, treebank codes undone."""
    rows = (line.rsplit("\t", 1) for line in path.read_text(encoding="utf-8").splitlines()[1:])
    return [(untreebank(text), int(label)) for text, label in rows]


def read_jsonl(path: Path) -> Labelled:
    """Rows of a file of `{"sentence", "label"}` objects."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [(row["sentence"], int(row["label"])) for row in rows]


def untreebank(text: str) -> str:
    """Undo the quotation and bracket codes of treebank files; spacing is left as it is."""
    for code, plain in (("``", '"'), ("''", '"'), ("-LRB-", "("), ("-RRB-", ")"), ("-lrb-", "("), ("-rrb-", ")")):
        text = text.replace(code, plain)
    return text.strip()
