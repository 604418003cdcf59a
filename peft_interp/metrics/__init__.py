"""Faithfulness (the text says what the vectors do), scrutability (people can read it), and whether it names its task.

The measures are plain functions in the modules below; `load` wraps them as modules of the `evaluate` library.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

NAMES = ("faithfulness", "scrutability", "task_naming")


def path(name: str) -> str:
    """The folder of a packaged `evaluate` module, for `evaluate.load(path)`.

    Args:
        name: "faithfulness", "scrutability" or "task_naming".

    Raises:
        ValueError: another name.
    """
    if name not in NAMES:
        raise ValueError(f"`name={name!r}` is no measure of this package; use one of {', '.join(NAMES)}.")
    return str(Path(__file__).parent / "evaluate_scripts" / name)


def load(name: str, **options: Any) -> Any:
    """A measure as an `evaluate` module, from the installed package, without a connection.

    Args:
        name: "faithfulness", "scrutability" or "task_naming".
        options: passed on to `evaluate.load` (`experiment_id`, `keep_in_memory`, ...).

    Returns:
        An `evaluate.Measurement`; its `compute` is described in `peft_interp.metrics.modules`.

    Raises:
        ValueError: another name.
        ImportError: `evaluate` is not installed.
    """
    try:
        import evaluate
    except ImportError as error:
        raise ImportError(
            "`peft_interp.metrics.load` needs the evaluate library; run `pip install evaluate`, or call "
            "`measure_scrutability` and `measure_faithfulness` directly."
        ) from error
    return evaluate.load(path(name), module_type="measurement", **options)
