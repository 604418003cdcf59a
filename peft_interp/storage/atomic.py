"""Replacing files so that a kill leaves the old ones or the new ones: a single file, or several that belong together.

A single file is written under another name in the same folder, put on the disk and renamed. Several files are collected
in a hidden folder beside their targets; renaming that folder is the moment at which the new set counts, and whoever
touches the adapter next moves in what a kill left there (`finish_save`). Links are never followed when writing into an
adapter: they are replaced by files.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

COLLECTED, COMPLETE = ".peft-interp-saving-", ".peft-interp-saved"
_REMOVED = ".removed"  # in a complete set: files that the new set does not have any more, a name a line


def replace_file(path: Path, content: bytes | str, follow_links: bool = False) -> None:
    """Write a file as a whole; after a kill it has the old content or the new.

    Args:
        path: the file; its folder must exist.
        content: bytes, or text that is written as UTF-8.
        follow_links: where the path is a link, replace what it leads to (a user's own output) and not the link. What is
            no regular file (`/dev/stdout`) is written to directly.
    """
    if follow_links:
        if path.exists() and not path.is_file():
            path.write_bytes(_as_bytes(content))
            return
        path = path.resolve()
    with _replacing(path) as file:
        file.write(_as_bytes(content))


def copy_file(source: Path, path: Path) -> None:
    """`replace_file` with another file's content, in pieces; no link is followed at `path`."""
    with _replacing(path) as file, source.open("rb") as read:
        shutil.copyfileobj(read, file)


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` to write into, which takes its place once all of it is on the disk; or nothing changes."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, _mode(path))
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextmanager
def files_together(folder: Path, names: Collection[str]) -> Iterator[Path]:
    """Files that belong together, written into the folder that this gives and moved to their places as one set.

    What a kill left of an earlier save is finished or thrown away first. Where the block raises, nothing has changed.

    Args:
        folder: where they shall lie; made where it is missing.
        names: of the files the set may have, as paths within the folder. Those that are there are copied for the block
            to read or change (links are not: they count as missing), and those it removes are removed.

    Yields:
        A folder for the block to work in. Everything that lies in it afterwards becomes part of the set.
    """
    folder.mkdir(parents=True, exist_ok=True)
    finish_save(folder)
    for left in folder.glob(f"{COLLECTED}*"):
        if not _writer_lives(left):
            shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f"{COLLECTED}{os.getpid()}-", dir=folder))
    try:
        before = [name for name in names if is_plain_file(folder, name)]
        for name in before:
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, work / name)
        yield work
        gone = [name for name in names if not (work / name).is_file() and os.path.lexists(folder / name)]
        (work / _REMOVED).write_text("".join(f"{name}\n" for name in gone), encoding="utf-8")
        _sync_below(work)
        os.rename(work, folder / COMPLETE)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    finish_save(folder)


def finish_save(folder: Path) -> bool:
    """Move in what a save had completed when it was killed; what it had not completed does not count.

    Returns:
        Whether there was anything to do. The files in the folder may then be others than those read before.

    Raises:
        ValueError: the folder cannot be written.
    """
    done = folder / COMPLETE
    if not done.is_dir() or done.is_symlink():
        return False
    try:
        for path in sorted(done.rglob("*")):
            if path.is_file() and path.name != _REMOVED:
                _move_in(path, folder, path.relative_to(done))
        removed = done / _REMOVED
        for name in removed.read_text(encoding="utf-8").splitlines() if removed.is_file() else []:
            _unlink(folder, Path(name))
        _sync_folder(folder)
        shutil.rmtree(done)
    except OSError as error:
        if not done.is_dir():
            return True  # another process has done the same
        raise ValueError(
            f"a save into {str(folder)!r} was interrupted and cannot be finished ({error.strerror or error}): its "
            f"files lie in {done.name!r}; make the folder writable and load again."
        ) from error
    return True


def is_plain_file(folder: Path, name: str | Path) -> bool:
    """Whether a path within a folder is a file that no link leads to on the way, save those within the Hub's cache."""
    path = folder
    for part in Path(name).parts:
        path = path / part
        if path.is_symlink() and not _leads_into_cache(path):
            return False
    return path.is_file()


def _leads_into_cache(link: Path) -> bool:
    """Whether it is one of the links of which the Hub's cache is made: `snapshots/<commit>/... -> blobs/<digest>`."""
    place = link.parent.resolve()
    for folder in (place, *place.parents):
        if folder.parent.name == "snapshots":
            return folder.parent.parent / "blobs" == link.resolve().parent
    return False


def _move_in(source: Path, folder: Path, name: Path) -> None:
    """To its place, with real folders on the way; a link or a folder in its place makes room."""
    for parent in reversed(name.parents[:-1]):
        if (folder / parent).is_symlink():
            (folder / parent).unlink()
        (folder / parent).mkdir(exist_ok=True)
    os.chmod(source, _mode(folder / name))
    os.replace(source, folder / name)


def _unlink(folder: Path, name: Path) -> None:
    """Remove a file of an earlier set, and its subfolder once that is empty."""
    if name.is_absolute() or ".." in name.parts or any((folder / parent).is_symlink() for parent in name.parents[:-1]):
        return
    (folder / name).unlink(missing_ok=True)
    inside = (folder / name).parent
    if inside != folder and inside.is_dir() and not any(inside.iterdir()):
        inside.rmdir()


def _writer_lives(work: Path) -> bool:
    """Whether the process that collects files there is running; its number is in the folder's name."""
    try:
        os.kill(int(work.name.removeprefix(COLLECTED).partition("-")[0]), 0)
    except (ValueError, ProcessLookupError):
        return False
    except OSError:
        return True
    return True


def _mode(path: Path) -> int:
    """The rights that a file has, or that a new one gets."""
    try:
        known = path.lstat()
        if stat.S_ISREG(known.st_mode):
            return stat.S_IMODE(known.st_mode)
    except OSError:
        pass
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _sync_below(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            _sync_folder(path)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Renames in it are on the disk, on systems that know this."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def _as_bytes(content: bytes | str) -> bytes:
    return content.encode("utf-8") if isinstance(content, str) else content
