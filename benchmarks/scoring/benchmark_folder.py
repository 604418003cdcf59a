"""Puts `benchmarks/training_step` on the import path, whose model, timing, memory and report are used here as well."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "training_step"))
