"""Results on disk: one file for each point, written whole or not at all."""

import json
from pathlib import Path
from typing import Any

from peft_interp.storage.atomic import replace_file

POINTS = Path(__file__).parent / "points"


def write_point(folder: Path, key: str, record: dict[str, Any]) -> None:
    """Keep a point's result."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / f"{key}.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def read_points(folder: Path) -> dict[str, dict[str, Any]]:
    """Results by key; none where the folder is not there yet."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
