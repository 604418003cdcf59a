"""Results on disk: one file for each point, written whole or not at all, so that a killed study can be gone on with."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from studies.tradeoff.points import Point

_POINTS, _FAILED = "points", ".failed.json"


class ResultStore:
    """The folder of a study."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / _POINTS
        self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, point: Point, record: dict[str, Any]) -> None:
        """Keep a point's result, or, where it holds `error`, its failure."""
        failed = "error" in record
        self._put(self._path(point, failed), record)
        if not failed:
            self._path(point, True).unlink(missing_ok=True)

    def read(self, point: Point) -> dict[str, Any] | None:
        """A point's result, or None where there is none yet."""
        path = self._path(point)
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def failure(self, point: Point) -> dict[str, Any] | None:
        """What went wrong with a point the last time, or None."""
        path = self._path(point, True)
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def take_in(self, folder: Path) -> None:
        """Copy the points that another machine has done, or failed at, from its folder or its file of records.

        Those done here stay.
        """
        if folder.is_file():
            self._take_in_records(folder)
            return
        for path in sorted((folder / _POINTS).glob("*.json")):
            own = self.folder / path.name
            done = self.folder / (path.name.removesuffix(_FAILED) + ".json")
            if not own.exists() and not done.exists():
                self._put(own, json.loads(path.read_text(encoding="utf-8")))
            if not path.name.endswith(_FAILED):
                (self.folder / (path.stem + _FAILED)).unlink(missing_ok=True)

    def _take_in_records(self, file: Path) -> None:
        for record in read_lines(file):
            own = self.folder / f"{record['key']}.json"
            if not own.exists():
                self._put(own, record)

    def missing(self, points: Iterable[Point]) -> list[Point]:
        """Points without a result, failed ones included."""
        return [point for point in points if not self._path(point).exists()]

    def _path(self, point: Point, failed: bool = False) -> Path:
        return self.folder / (point.key + (_FAILED if failed else ".json"))

    def _put(self, path: Path, record: dict[str, Any]) -> None:
        unfinished = path.with_suffix(f".{os.getpid()}.part")
        with unfinished.open("w", encoding="utf-8") as file:
            json.dump(record, file, ensure_ascii=False, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)


def write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """All records as JSON lines, packed where the name ends in ".gz", in one replacement of the file."""
    unfinished = path.with_suffix(".part")
    lines = [json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records]
    text = "".join(lines).encode()
    unfinished.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
    unfinished.replace(path)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file written by `write_lines`."""
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    return [json.loads(line) for line in text.decode().split("\n") if line]
