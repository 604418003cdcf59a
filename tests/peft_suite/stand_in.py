"""Pytest plug-in that puts a config of ours in `PromptTuningConfig`'s place before PEFT's test modules are imported.

Nothing of PEFT or transformers is patched: the tests import the name from `peft`, the library itself from
`peft.tuners`. Models come from `local_hub`, which HF_ENDPOINT names; optional imports and one data set are stand-ins.
Tests that do not use the class are deselected. `tests/peft_suite/__main__.py` sets the environment this reads:

    PEFT_SUITE_CONFIG   "module:class", say "peft_interp:InterpPromptConfig"
    PEFT_SUITE_KWARGS   JSON, added to the settings of every test that makes one
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import inspect
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny_models
from datasets import Dataset, DatasetDict

ALWAYS = {"test_from_peft_type"}  # does not mention the class, but depends on what is registered
_state: dict[str, Any] = {}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "regression: of PEFT's own")
    module, name = os.environ["PEFT_SUITE_CONFIG"].split(":")
    _state["stock"] = peft.PromptTuningConfig
    _state["ours"] = peft.PromptTuningConfig = getattr(importlib.import_module(module), name)
    _state["settings"] = json.loads(os.environ.get("PEFT_SUITE_KWARGS") or "{}")


def pytest_pycollect_makemodule(module_path: Path) -> None:
    """Before the first test module: the data set of the suite's helpers, and names they import but do not need."""
    if "prepared" in _state or not (module_path.parent / "testing_utils.py").exists():
        return
    _state["prepared"] = True
    package = module_path.parent.name
    _state["absent"] = [name for name in ("diffusers", "parameterized") if not importlib.util.find_spec(name)]
    for name in _state["absent"]:
        sys.modules[name] = _empty_module(name)
    rows = list(tiny_models.sentences(200, seed=1))
    quotes = DatasetDict({"train": Dataset.from_dict({"quote": rows, "author": ["x"] * len(rows)})})
    helpers = importlib.import_module(f"{package}.testing_utils")
    helpers.load_dataset_english_quotes = lambda: quotes  # type: ignore[attr-defined]
    importlib.import_module(f"{package}.testing_common")


def _empty_module(name: str) -> types.ModuleType:
    """What the test modules import at their top; tests that use it are none of ours."""
    module: Any = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__version__ = "0.0.0"
    module.StableDiffusionPipeline = type("StableDiffusionPipeline", (), {})
    module.parameterized = type("parameterized", (), {"expand": staticmethod(lambda *_: lambda test: test)})
    module.parameterized_class = lambda *_: lambda test: test
    return module


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: Any) -> None:
    """A module is imported and its parametrised lists are not expanded yet: add our settings in place."""
    module = collector.getparent(pytest.Module).obj
    if module.__name__ in _state.setdefault("seen", set()):
        return
    _state["seen"].add(module.__name__)
    for name in ("ALL_CONFIGS", "ALL_CONFIG_CLASSES"):
        rows = getattr(module, name, None)
        for i, row in enumerate(rows if isinstance(rows, list) else ()):
            if row[0] is _state["ours"]:
                rows[i] = (row[0], {**row[1], **_state["settings"]})


def pytest_collection_modifyitems(config: pytest.Config, items: list[Any]) -> None:
    for name in _state.pop("absent", ()):
        sys.modules.pop(name, None)  # transformers must not take it for the real one
    kept = [item for item in items if _uses_class(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


def _uses_class(item: Any) -> bool:
    ours = _state["ours"]
    if item.originalname in ALWAYS:
        return True
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    given = [parameters[k] for k in ("config_cls", "config_class", "peft_config", "config") if k in parameters]
    if given:
        return any(value is ours or isinstance(value, ours) for value in given)
    return "PromptTuningConfig" in inspect.getsource(item.function)
