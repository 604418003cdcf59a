"""Where and when a measurement was made, so that its figures can be judged."""

import datetime
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

import peft_interp

PACKAGES = {"torch": torch, "transformers": transformers, "peft": peft, "peft-interp": peft_interp}


def describe_machine(device: str) -> dict[str, Any]:
    """Date, commit, versions, processor, threads and the load that the machine was under at the start."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **{name: m.__version__ for name, m in PACKAGES.items()}},
        "system": platform.platform(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _commit() -> str:
    """Short hash of the checkout, "-dirty" where files differ from it; "unknown" outside a checkout."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
