"""Model files that arrive as Python packages: found without importing the package, and checked before they are used."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True)
class Wheel:
    """A package of the index that holds a model.

    Attributes:
        distribution: its name for pip.
        version: the one whose files were tested.
        module: its top folder among the installed packages; never imported (one of them needs a compiled library).
        file: the weights, below that folder.
        sha256: of the weights.
        holds: what it is, for messages.
        also: other distributions that its files need to be read.
        others: further files that are read, each with its sha256.
    """

    distribution: str
    version: str
    module: str
    file: str
    sha256: str
    holds: str
    also: tuple[str, ...] = ()
    others: tuple[tuple[str, str], ...] = ()

    @property
    def install(self) -> str:
        """The command that installs it."""
        needed = f"pip install {' '.join(self.also)} && " if self.also else ""
        return f"{needed}pip install --no-deps {self.distribution}=={self.version}"

    def is_installed(self) -> bool:
        """Whether the package is there at all; its files are not looked at."""
        return find_spec(self.module) is not None and all(find_spec(name) is not None for name in self.also)

    def find(self) -> Path:
        """The weights; they and the other files that are read are checked.

        Raises:
            ModuleNotFoundError: it, or what its files need to be read, is not installed.
            ValueError: another version, or a damaged file.
        """
        spec = find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"{self.holds} is not installed; run `{self.install}`.")
        missing = [name for name in self.also if find_spec(name) is None]
        if missing:
            raise ModuleNotFoundError(f"{self.holds} needs {' and '.join(missing)}; run `pip install {missing[0]}`.")
        folder = Path(next(iter(spec.submodule_search_locations)))
        for name, known in (*self.others, (self.file, self.sha256)):
            if not (folder / name).is_file():
                raise ValueError(f"{self._installed()} has no file {name}; run `{self._again()}`.")
            if sha256(folder / name) != known:
                raise ValueError(
                    f"{name} of {self._installed()} is not the file that {self.distribution} {self.version} holds: "
                    f"another version, or a damaged one; run `{self._again()}`."
                )
        return folder / self.file

    def _installed(self) -> str:
        try:
            return f"{self.distribution} {version(self.distribution)}"
        except PackageNotFoundError:
            return f"the package {self.module}"

    def _again(self) -> str:
        return self.install.replace("--no-deps", "--force-reinstall --no-deps")


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
