"""How `evaluate` finds, imports, runs and combines a metric kept in a local directory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evaluate
import pytest
from evaluate.loading import get_imports
from evaluate.module import CombinedEvaluations

WriteMetric = Callable[..., Path]

MEASUREMENT = """
import datasets
import evaluate
{extra}

class {name}(evaluate.Measurement):
    def _info(self):
        features = datasets.Features({{"data": datasets.Value("string")}})
        return evaluate.MeasurementInfo(
            description="d", citation="c", inputs_description="", features=features
        )

    def _compute(self, data, model=None):
        return {{"{key}": len(data), "model": model}}
"""


@pytest.fixture(autouse=True)
def offline(evaluate_caches: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)


@pytest.fixture
def write_metric(tmp_path: Path) -> WriteMetric:
    """`write_metric(folder, script=None, name="Counter", key="count", extra="")`: its folder."""

    def write(
        folder: str,
        script: str | None = None,
        name: str = "Counter",
        key: str = "count",
        extra: str = "",
    ) -> Path:
        directory = tmp_path / "source" / folder
        directory.mkdir(parents=True)
        code = MEASUREMENT.format(name=name, key=key, extra=extra)
        (directory / f"{script or folder}.py").write_text(code)
        return directory

    return write


def test_directory_needs_a_script_of_its_name(write_metric: WriteMetric) -> None:
    """Promise: package data is `metrics/<name>/<name>.py`, so `evaluate.load(directory)` works."""
    module = evaluate.load(str(write_metric("counter")))
    assert module.compute(data=["a", "b"]) == {"count": 2, "model": None}
    assert module.module_type == "measurement"
    assert module.name == "counter"
    with pytest.raises(FileNotFoundError, match="Couldn't find a module script"):
        evaluate.load(str(write_metric("other", script="main")))


def test_first_subclass_in_the_namespace_wins(write_metric: WriteMetric) -> None:
    """Promise: our scripts import exactly one EvaluationModule class."""
    extra = "class Early(evaluate.Measurement):\n    _info = lambda self: Counter._info(self)\n"
    module = evaluate.load(str(write_metric("counter", extra=extra)))
    assert type(module).__name__ == "Early"


def test_imported_base_class_is_taken_for_the_metric(write_metric: WriteMetric) -> None:
    """Promise: our scripts never say `from evaluate import Measurement`."""
    folder = write_metric("counter", extra="from evaluate import Measurement\n")
    with pytest.raises(NotImplementedError):
        evaluate.load(str(folder))


def test_a_script_may_import_the_class(write_metric: WriteMetric, tmp_path: Path) -> None:
    """Promise: real classes live in the package; the script is one plain import line."""
    write_metric("package", script="contract_metric_source")
    sys.path.append(str(tmp_path / "source" / "package"))
    folder = tmp_path / "source" / "thin"
    folder.mkdir()
    (folder / "thin.py").write_text("from contract_metric_source import Counter\n")
    try:
        assert evaluate.load(str(folder)).compute(data=["a"])["count"] == 1
    finally:
        del sys.modules["contract_metric_source"]


def test_scanner_wants_one_plain_import_per_line(tmp_path: Path) -> None:
    """Promise: our scripts have one import per line; `import a, b` asks for a library "a,"."""
    script = tmp_path / "script.py"
    script.write_text("import json\nfrom os.path import join\nif True:\n    import hidden\n")
    assert [entry[:2] for entry in get_imports(str(script))] == [
        *(("library", "json"), ("library", "os")),
    ]
    script.write_text("import json, os\n")
    with pytest.raises(ImportError, match=r"\['json,'\]"):
        evaluate.load(str(script))


def test_live_objects_go_through_compute(write_metric: WriteMetric) -> None:
    """Promise: `compute(model=..., tokenizer=...)` hands our metrics live objects, uncopied."""
    module, model = evaluate.load(str(write_metric("counter"))), object()
    assert module.compute(data=["a"], model=model)["model"] is model


def test_combine_takes_objects_and_hands_all_of_them_everything(
    write_metric: WriteMetric,
) -> None:
    """Promise: scrutability and faithfulness share keyword names, so they can be combined."""
    first = evaluate.load(str(write_metric("counter")))
    second = evaluate.load(str(write_metric("sizer", name="Sizer", key="size")))
    both = evaluate.combine([first, second])
    assert isinstance(both, CombinedEvaluations)
    # Keys that both return are told apart by the class's name.
    assert both.compute(data=["a", "b"], model=1) == {
        "count": 2,
        "size": 2,
        "counter_model": 1,
        "sizer_model": 1,
    }
    with pytest.raises(TypeError, match="tokenizer"):
        both.compute(data=["a"], tokenizer=1)


def test_modules_write_their_cache_directory_when_built(write_metric: WriteMetric, tmp_path: Path) -> None:
    """Promise: plain score functions exist beside the modules; building one touches the disk."""
    evaluate.load(str(write_metric("counter")))
    assert (tmp_path / "metrics" / "counter" / "default").is_dir()
    evaluate.load(str(tmp_path / "source" / "counter"), cache_dir=str(tmp_path / "elsewhere"))
    assert (tmp_path / "elsewhere" / "counter" / "default").is_dir()


def test_relative_name_shadows_the_hub(write_metric: WriteMetric, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: our docs pass a full path; a folder of that name in the working directory wins."""
    monkeypatch.chdir(write_metric("accuracy").parent)
    assert evaluate.load("accuracy").module_type == "measurement"


def test_offline_hub_names_fail_without_a_connection() -> None:
    """Promise: our tests and examples run with HF_EVALUATE_OFFLINE=1 and no network."""
    with pytest.raises(FileNotFoundError, match="doesn't exist on the Hugging Face Hub either"):
        evaluate.load("contract_metric_that_is_nowhere")


def test_module_type_is_checked_after_loading(write_metric: WriteMetric) -> None:
    """Promise: our metrics are Measurements, and asking for another type says so."""
    folder = str(write_metric("counter"))
    assert evaluate.load(folder, module_type="measurement").module_type == "measurement"
    with pytest.raises(TypeError, match="module type 'measurement' instead"):
        evaluate.load(folder, module_type="metric")


def test_evaluator_cannot_take_a_callable_or_pipeline() -> None:
    """Promise: our docs do not use `evaluate.evaluator`; it asks for a class that is gone."""
    task = evaluate.evaluator("text-classification")

    def pipe(texts: list[str]) -> list[Any]:
        return []

    with pytest.raises(AttributeError, match="TFPreTrainedModel"):
        task.prepare_pipeline(model_or_pipeline=pipe)
