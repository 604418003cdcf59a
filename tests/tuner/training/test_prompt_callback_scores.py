"""`PromptCallback(scores=True)`: what is scored, where it is shown, and what trackers get."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback

from peft_interp import InterpPromptConfig, PromptCallback, embedded, text_nll

Build = Callable[..., Any]


@pytest.fixture
def trained(learner: Build) -> Build:
    """`trained(config, callback=None, later=(), **arguments)`: three steps of the embedded model, and the callback."""

    def run(
        config: Any, callback: PromptCallback | None = None, later: tuple[Any, ...] = (), **arguments: Any
    ) -> tuple[Trainer, PromptCallback]:
        tokenizer, task = embedded.load_tokenizer(), embedded.TASKS["sentiment"]
        data = embedded.load_data("sentiment")["train"].select(range(8))
        rows = [task.encode(tokenizer, row["sentence"], row["label"]) for row in data]
        callback = callback or PromptCallback(tokenizer, scores=True)
        options: dict[str, Any] = {"callbacks": [callback, *later], "data_collator": DataCollatorForSeq2Seq(tokenizer)}
        options |= {"eval_dataset": rows[:4]} if "eval_strategy" in arguments else {}
        torch.manual_seed(0)
        model = get_peft_model(embedded.load_model(), config)
        trainer = learner(model, rows, options, **{"max_steps": 3, "learning_rate": 0.3, **arguments})
        trainer.train()
        return trainer, callback

    return run


@pytest.fixture
def tokens() -> InterpPromptConfig:
    return InterpPromptConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=4, allowed_tokens="words", tokenizer_name_or_path=embedded.MODEL_PATH
    )


def test_every_log_has_the_scores_of_its_prompt(
    trained: Build, tokens: InterpPromptConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    trainer, callback = trained(tokens)
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    last = entries[-1]
    nll = text_nll(embedded.load_model(), trainer.model.prompt_token_ids())
    assert last["prompt/nll"] == pytest.approx(nll, abs=1e-4)
    assert last["prompt/perplexity"] == pytest.approx(math.exp(nll), rel=1e-3)
    assert all(0 <= entry["prompt/readability"] <= 1 for entry in entries)
    assert all(entry["prompt/readable"] in (0.0, 1.0) for entry in entries)
    assert callback.history[-1]["scores"] == {
        name: last[f"prompt/{name}"] for name in ("nll", "perplexity", "readability", "readable")
    }
    printed = capfd.readouterr().out
    assert "'prompt_perplexity': " in printed
    assert "'prompt_readable': 'no'" in printed or "'prompt_readable': 'yes'" in printed


def test_a_prompt_is_scored_once(trained: Build, tokens: InterpPromptConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft_interp import callbacks

    calls: list[list[int]] = []
    score = callbacks.reading_scores

    def counted(model: Any, tokenizer: Any) -> Any:
        calls.append(model.prompt_token_ids())
        return score(model, tokenizer)

    monkeypatch.setattr(callbacks, "reading_scores", counted)
    trained(tokens, learning_rate=0.0)
    assert len(calls) == 1


def test_tensorboard_gets_texts_and_figures(trained: Build, tokens: InterpPromptConfig, tmp_path: Path) -> None:
    trainer, callback = trained(tokens, report_to=["tensorboard"])
    (folder,) = {path.parent for path in tmp_path.rglob("prompt/events.out.tfevents.*")}
    assert list(folder.parent.glob("events.out.tfevents.*"))
    events = EventAccumulator(str(folder)).Reload()
    entries = [entry for entry in trainer.state.log_history if "prompt/nll" in entry]
    written = {event.step: event.value for event in events.Scalars("prompt/nll")}
    assert written == {entry["step"]: pytest.approx(entry["prompt/nll"], rel=1e-5) for entry in entries}
    texts = events.Tensors("prompt/text/text_summary")
    assert [event.step for event in texts] == [record["step"] for record in callback.history]
    said = [event.tensor_proto.string_val[0].decode() for event in texts]
    assert all(record["text"] in text for record, text in zip(callback.history, said, strict=True))


def test_no_tensorboard_file_without_tensorboard(trained: Build, tokens: InterpPromptConfig, tmp_path: Path) -> None:
    trained(tokens)
    assert not list(tmp_path.rglob("events.out.tfevents.*"))


def test_mlflow_gets_texts_and_figures(
    trained: Build, tokens: InterpPromptConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its file store, beside what Trainer's own callback writes there."""
    mlflow = pytest.importorskip("mlflow")
    uri = (tmp_path / "mlruns").as_uri()
    for name, value in {"MLFLOW_TRACKING_URI": uri, "MLFLOW_ALLOW_FILE_STORE": "true"}.items():
        monkeypatch.setenv(name, value)
    trainer, callback = trained(tokens, report_to=["mlflow"])
    assert mlflow.active_run() is None
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs(["0"])
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    losses = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "loss")}
    assert losses == {entry["step"]: entry["loss"] for entry in entries}
    for name in ("prompt/nll", "prompt/perplexity", "prompt/readability", "prompt/readable"):
        written = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, name)}
        assert written == {entry["step"]: pytest.approx(entry[name]) for entry in trainer.state.log_history}
    assert run.data.tags["prompt_text"] == callback.history[-1]["text"]
    texts = {path.stem: path.read_text(encoding="utf-8") for path in tmp_path.rglob("artifacts/prompt/step-*.txt")}
    assert texts == {f"step-{record['step']}": record["text"] for record in callback.history}


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_that_logs_everything_gets_both(
    trained: Build, tokens: InterpPromptConfig, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A module that records what its `log` is given stands in for the two, which need a service or are large."""
    received: list[dict[str, Any]] = []
    recorder = ModuleType(name)
    recorder.log = received.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, recorder)
    callback = PromptCallback(embedded.load_tokenizer(), scores=True)
    trainer, _ = trained(tokens, callback, (Begins(name),))
    assert [entry["train/global_step"] for entry in received] == [1, 2, 3, 3]
    for entry, told in zip(trainer.state.log_history, received, strict=True):
        assert told["prompt/text"] == entry["prompt_text"]
        assert told["prompt/nll"] == entry["prompt/nll"]
        assert not any(key in told for key in ("prompt/ids", "prompt_text"))


class Begins(TrainerCallback):
    """Names a tracker after the Trainer was made, which would ask for the package itself, and before it trains."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on_init_end(self, args: Any, *rest: Any, **kwargs: Any) -> None:
        args.report_to = [self.name]


class Table(TrainerCallback):
    """A notebook's table as it is after the last evaluation, and the lines that a user's own tracker is given."""

    def __init__(self) -> None:
        from transformers.utils.notebook import NotebookProgressCallback

        self.shown = NotebookProgressCallback()
        self.rows: list[list[Any]] = []
        self.lines: list[dict[str, Any]] = []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.shown.on_train_begin(*args, **kwargs)

    def on_log(self, *args: Any, logs: dict[str, Any], **kwargs: Any) -> None:
        self.lines.append(dict(logs))

    def on_evaluate(self, *args: Any, **kwargs: Any) -> None:
        self.shown.on_evaluate(*args, **kwargs)
        self.rows = [list(row) for row in self.shown.training_tracker.inner_table]


@pytest.mark.parametrize("in_notebook", [True, False])
def test_jupyters_table_has_readable_headings(
    trained: Build, tokens: InterpPromptConfig, monkeypatch: pytest.MonkeyPatch, in_notebook: bool
) -> None:
    pytest.importorskip("IPython")
    from peft_interp import callbacks

    monkeypatch.setattr(callbacks, "is_in_notebook", lambda: in_notebook)
    monkeypatch.setattr(callbacks, "shortened", lambda text: f"<b>{text.strip()}")
    table = Table()
    _, callback = trained(tokens, None, (table,), eval_strategy="steps", eval_steps=1)
    headings = table.rows[0]
    assert headings == ["Step", "Training Loss", "Validation Loss", "Text", "Perplexity", "Readable"]
    mark = "&lt;b&gt;" if in_notebook else "<b>"
    for step, row in enumerate(table.rows[1:], start=1):
        (known,) = [record for record in callback.history if record["step"] == step]
        assert row[headings.index("Text")] == mark + known["text"].strip()
        assert row[headings.index("Perplexity")] == known["scores"]["perplexity"]
        assert row[headings.index("Readable")] == ("yes" if known["scores"]["readable"] else "no")
    assert all({"prompt_text", "prompt_perplexity", "prompt_readable"} <= line.keys() for line in table.lines)


@pytest.mark.parametrize("ours", [True, False])
def test_a_soft_prompt_shows_how_far_its_nearest_tokens_are(trained: Build, tokens: Any, ours: bool) -> None:
    """Its text is no reading of it, so it gets no perplexity."""
    soft = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, projection_metric="none")
    stock = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, prompt_tuning_init="RANDOM")
    trainer, callback = trained(soft if ours else stock)
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert all(0 < entry["prompt/cosine_distance"] < 2 for entry in entries)
    assert all(entry["prompt_text"] for entry in entries)
    assert not any("prompt/perplexity" in entry for entry in entries)
    assert callback.history[0]["scores"] == {"cosine_distance": entries[0]["prompt/cosine_distance"]}


def test_scores_need_a_tokenizer() -> None:
    with pytest.raises(ValueError, match="`scores=True` needs the tokenizer"):
        PromptCallback(scores=True)


def test_training_is_the_same_with_scores(trained: Build, tokens: InterpPromptConfig) -> None:
    plain, _ = trained(tokens, PromptCallback(embedded.load_tokenizer()))
    scored, _ = trained(tokens)
    assert scored.model.prompt_token_ids() == plain.model.prompt_token_ids()
    losses = [[entry["loss"] for entry in run.state.log_history if "loss" in entry] for run in (plain, scored)]
    assert losses[0] == losses[1]
