"""`PromptCallback(scores=True)`: what is scored, where it is shown, and what TensorBoard gets."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import DataCollatorForSeq2Seq, Trainer

from peft_interp import InterpPromptConfig, PromptCallback, embedded, text_nll

Build = Callable[..., Any]


@pytest.fixture
def trained(learner: Build) -> Build:
    """`trained(config, callback=None, **arguments)`: the embedded model after three steps, and its callback."""

    def run(config: Any, callback: PromptCallback | None = None, **arguments: Any) -> tuple[Trainer, PromptCallback]:
        tokenizer, task = embedded.load_tokenizer(), embedded.TASKS["sentiment"]
        data = embedded.load_data("sentiment")["train"].select(range(8))
        rows = [task.encode(tokenizer, row["sentence"], row["label"]) for row in data]
        callback = callback or PromptCallback(tokenizer, scores=True)
        options = {"callbacks": [callback], "data_collator": DataCollatorForSeq2Seq(tokenizer)}
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
    assert "'perplexity': " in printed
    assert "'readable': 'no'" in printed or "'readable': 'yes'" in printed


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
