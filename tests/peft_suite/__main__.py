"""PEFT's own, unmodified test suite with `InterpPromptConfig` in `PromptTuningConfig`'s place: `make peft-suite`.

    python -m tests.peft_suite [--stock] [--settings '{"perplexity_weight": 0.1}'] [pytest's arguments]

The tests are in the source distribution of the installed PEFT, which pip downloads once into `outputs/peft_suite`
(`PEFT_SDIST` names one that is already here). A whole run, without pytest arguments that select, must pass and skip
exactly as many tests as stock PEFT does (`STOCK`).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

from tests.peft_suite.local_hub import serve

HERE = Path(__file__).resolve().parent
WORK = HERE.parents[1] / "outputs" / "peft_suite"
FILES = ("decoder_models", "encoder_decoder_models", "seq_classifier", "feature_extraction_models")
FILES += ("config", "initialization", "tuners_utils")
STOCK = {"0.21.2": {"passed": 336, "skipped": 104}}  # what `--stock` gives


def suite(peft: str) -> Path:
    """The folder that holds PEFT's `tests`.

    Raises:
        SystemExit: the source distribution is not here and cannot be downloaded.
    """
    folder = WORK / f"peft-{peft}"
    if not (folder / "tests").is_dir():
        with tarfile.open(os.environ.get("PEFT_SDIST") or _download(peft)) as archive:
            members = [member for member in archive if member.name.startswith(f"peft-{peft}/tests/")]
            archive.extractall(WORK, members, filter="data")
    (folder / "tests" / "__init__.py").touch()  # left out of the archive
    (folder / "pytest.ini").touch()  # the settings of our own tests are not for these
    return folder


def _download(peft: str) -> Path:
    archive = WORK / f"peft-{peft}.tar.gz"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "-d", str(WORK)]
    for isolation in (["--no-build-isolation"], []):
        if not archive.exists():
            subprocess.run([*pip, *isolation, f"peft=={peft}"], check=False)
    if not archive.exists():
        raise SystemExit(
            f"PEFT's tests are in its source distribution, and pip could not download that of peft {peft}. Put "
            f"peft-{peft}.tar.gz into {WORK} or name it in PEFT_SDIST."
        )
    return archive


def run(config: str, settings: str, arguments: list[str]) -> int:
    """Run the tests; 0 where all is as it is with stock PEFT."""
    peft = version("peft")
    WORK.mkdir(parents=True, exist_ok=True)
    folder, hub = suite(peft), WORK / f"models-transformers-{version('transformers')}"
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment.pop("HF_HUB_OFFLINE", None)  # the loopback hub is asked
    environment |= {"PEFT_SUITE_CONFIG": config, "PEFT_SUITE_KWARGS": settings, "HF_ENDPOINT": serve(hub)}
    found = [str(HERE), str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]  # this checkout's package
    environment |= {"PYTHONPATH": os.pathsep.join(found)}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    if not (hub / "complete").exists():
        subprocess.run([sys.executable, str(HERE / "tiny_models.py"), str(hub)], check=True, env=environment)
        (hub / "complete").touch()
    files = [f"tests/test_{name}.py" for name in FILES]
    options = [
        "-q",
        "-W",
        "ignore",
        "--tb=short",
        "--rootdir",
        ".",
        "-p",
        "stand_in",
        "-p",
        "no:cacheprovider",
        "-o",
        "faulthandler_timeout=120",
    ]
    command = [sys.executable, "-m", "pytest", *options, *files, *arguments]
    with tempfile.TemporaryDirectory(prefix="peft_suite_") as home:
        environment |= {"HF_HOME": home, "HF_HUB_DISABLE_XET": "1"}
        with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as ran:
            assert ran.stdout is not None
            summary = ""
            for line in ran.stdout:
                print(line, end="", flush=True)  # noqa: T201
                summary = line if line.strip() else summary
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", summary)}
    expected = STOCK.get(peft)
    selected = any(argument.startswith(("-k", "--deselect")) for argument in arguments)
    if ran.returncode or expected is None or selected or expected.items() <= counts.items():
        return ran.returncode
    print(f"passed and skipped must be {expected}, as with stock PEFT {peft}")  # noqa: T201
    return 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="PEFT's own tests with our config.")
    parser.add_argument("--stock", action="store_true", help="with PEFT's own class, for comparison")
    parser.add_argument("--settings", default="{}", help="JSON: settings for every config")
    known, others = parser.parse_known_args()
    raise SystemExit(
        run("peft:PromptTuningConfig" if known.stock else "peft_interp:InterpPromptConfig", known.settings, others)
    )
