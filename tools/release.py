"""Builds and checks what would be published: `python -m tools.release [--full]`, or `make release-check`.

Wheel and sdist are built in an environment of their own, checked by twine and by what must be in them; then the wheel
is installed into an empty environment, where the README's first block that needs no other wheel runs. That environment
borrows the dependencies of this one, whose copy of the package it does not see; `--full` installs them anew: minutes,
and gigabytes.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

from peft_interp import __version__
from peft_interp.embedded.smollm2 import SMOLLM2

ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "outputs" / "dist"
RELATIVE_LINK = re.compile(r"\]\((?!https?://)[^)\s]+\)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.DOTALL | re.MULTILINE)


def plain_block(readme: str) -> str:
    """The first Python of a README that needs no model beside the package's own.

    Raises:
        ValueError: it has none.
    """
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    plain = next((block for block in blocks if SMOLLM2 not in block), None)
    if plain is None:
        raise ValueError(f"the README has no ```python block without {SMOLLM2!r}; give it one that runs as it stands.")
    return str(plain)


def faults(metadata: Message, names: list[str]) -> list[str]:
    """What is wrong with a wheel, in words; nothing for a good one.

    Args:
        metadata: of the wheel.
        names: of its files.
    """
    description = CODE.sub("", str(metadata.get_payload()))
    wrong = [f"the long description has a relative link: {link[1:]}" for link in RELATIVE_LINK.findall(description)]
    if metadata["Version"] != __version__:
        wrong.append(f"the wheel's version is {metadata['Version']}, the package's {__version__}")
    licences = str(metadata["License-Expression"]).split(" AND ")
    wrong += [f"no {name} among the licences" for name in ("Apache-2.0", "CC0-1.0") if name not in licences]
    if "LicenseRef-Embedded-Weights" not in licences:
        wrong.append("the licences say nothing of the embedded model's weights")
    package = ROOT / "peft_interp"
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    missing = {path.relative_to(ROOT).as_posix() for path in files} - set(names)
    wrong += [f"{name} is not in the wheel" for name in sorted(missing)]
    wrong += [f"{name} is not the package's" for name in names if name.startswith(("tests/", "docs/", "studies/"))]
    return wrong


def _run(*command: str | Path, folder: Path = ROOT, **environment: str) -> str:
    """What a command prints; where it fails, its words and an end."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    finished = subprocess.run(
        list(map(str, command)), cwd=folder, env={**own, **environment}, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{finished.stdout[-3000:]}{finished.stderr[-3000:]}")
    return finished.stdout


def build() -> Path:
    """Wheel and sdist in `outputs/dist`; the wheel's place."""
    for old in OUTPUT.glob("*"):
        old.unlink()
    _run(sys.executable, "-m", "build", "--outdir", OUTPUT, ROOT)
    (wheel,), (sdist,) = OUTPUT.glob("*.whl"), OUTPUT.glob("*.tar.gz")
    _run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (place,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = message_from_string(archive.read(place).decode("utf-8"))
    if wrong := faults(metadata, names):
        raise SystemExit("\n".join(wrong))
    return wheel


def try_out(wheel: Path, full: bool) -> str:
    """The README's plain block where nothing but the wheel is installed; what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "environment"
        venv.create(place, with_pip=True)
        python = place / "bin" / "python"
        if full:
            _run(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", "torch")
            _run(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel)
        else:
            _run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel)
            (own,) = place.glob("lib/python*/site-packages")  # a folder that a .pth names: its own .pth are not read
            (own / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        where = _run(python, "-c", "import peft_interp; print(peft_interp.__file__)", folder=Path(folder)).strip()
        if not Path(where).resolve().is_relative_to(place.resolve()):
            raise SystemExit(f"the environment imports {where}, which is not the wheel's.")
        if (told := _run(place / "bin" / "peft-interp", "--version").strip()) != f"peft-interp {__version__}":
            raise SystemExit(f"the command says {told!r}.")
        block = plain_block((ROOT / "README.md").read_text(encoding="utf-8"))
        return _run(python, "-c", block, folder=Path(folder), HF_HUB_OFFLINE="1")


def main() -> None:
    """Build, check, try out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="install the dependencies too")
    full = parser.parse_args().full
    wheel = build()
    print(f"{wheel.name}: built, checked, {wheel.stat().st_size / 1e6:.1f} MB")
    print(try_out(wheel, full).strip().splitlines()[-1])
    print("the README's plain block runs with the wheel alone")


if __name__ == "__main__":
    main()
