"""`PromptCallback`: what it adds to the logs, which prompt it keeps, and when it moves the adapter there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, Trainer

from peft_interp import PromptCallback

Build = Callable[..., Any]


class Recorder(PromptCallback):
    """Remembers the prompt at every evaluation, and the scores it was given instead of the real ones."""

    def __init__(self, name: str, scores: list[float], **options: Any) -> None:
        super().__init__(**options)
        self.name, self.scores = name, scores
        self.prompts: list[list[int]] = []

    def on_evaluate(self, *args: Any, **kwargs: Any) -> None:
        kwargs["metrics"][self.name] = self.scores[len(self.prompts)]
        self.prompts.append(kwargs["model"].prompt_token_ids())
        super().on_evaluate(*args, **kwargs)


@pytest.fixture
def scored(gpt2: Build, readable: Build, learner: Build, rows_for: Build) -> Build:
    """`scored(callback, model=None, **arguments)`: Trainer after five steps with an evaluation after each."""

    def run(callback: Recorder, model: Any = None, task: str = "CAUSAL_LM", **arguments: Any) -> Trainer:
        rows = rows_for(task)
        options = {"callbacks": [callback], "eval_dataset": rows}
        often = {"eval_strategy": "steps", "eval_steps": 1, "learning_rate": 0.4}
        trainer = learner(model or readable(gpt2()), rows, options, **{**often, **arguments})
        trainer.train()
        return trainer

    return run


@pytest.mark.parametrize(
    ("arguments", "name", "best"),
    [
        ({}, "eval_loss", 1),
        ({"metric_for_best_model": "accuracy"}, "eval_accuracy", 3),
        ({"metric_for_best_model": "eval_accuracy"}, "eval_accuracy", 3),
        ({"metric_for_best_model": "error", "greater_is_better": False}, "eval_error", 1),
    ],
)
def test_best_prompt_is_kept_and_restored(
    arguments: dict[str, Any], name: str, best: int, scored: Build, gpt2: Build
) -> None:
    scores = [0.5, 0.1, 0.5, 0.9, 0.5]
    callback = Recorder(name, scores)
    model = scored(callback, **arguments).model
    assert callback.prompts[best] != callback.prompts[-1]
    assert model.best_prompt() == (callback.prompts[best], scores[best])
    assert model.prompt_token_ids() == callback.prompts[best]
    rows = gpt2().get_input_embeddings().weight[callback.prompts[best]]
    assert torch.equal(model.get_prompt(1)[0], rows)


def test_last_prompt_stays_on_request(scored: Build) -> None:
    callback = Recorder("eval_loss", [0.5, 0.1, 0.5, 0.9, 0.5], restore_best=False)
    model = scored(callback).model
    assert model.prompt_token_ids() == callback.prompts[-1]
    assert model.best_prompt() == (callback.prompts[1], 0.1)


def test_latest_of_equal_prompts_wins(scored: Build) -> None:
    callback = Recorder("eval_loss", [0.5, 0.1, 0.1, 0.9, 0.5])
    assert scored(callback).model.best_prompt() == (callback.prompts[2], 0.1)


def test_a_trained_head_is_not_parted_from_its_prompt(scored: Build, bert: Build, readable: Build) -> None:
    """The ids of step 2 with the head of step 5 were never evaluated together."""
    callback = Recorder("eval_loss", [0.5, 0.1, 0.5, 0.9, 0.5])
    model = scored(callback, readable(bert(num_labels=2), "SEQ_CLS"), "SEQ_CLS").model
    assert callback.prompts[1] != callback.prompts[-1]
    assert model.prompt_token_ids() == callback.prompts[-1]


def test_a_soft_prompt_is_not_projected(scored: Build, gpt2: Build, readable: Build, latent_of: Build) -> None:
    model = readable(gpt2(), projection_metric="none", prompt_tuning_init="RANDOM")
    callback = Recorder("eval_loss", [0.1] + [0.5] * 14)
    scored(callback, model, learning_rate=0.2, max_steps=15)
    assert callback.prompts[0] != callback.prompts[-1]
    table = gpt2().get_input_embeddings().weight
    assert torch.cdist(latent_of(model), table).min() > 0.1


def test_evaluations_outside_training_are_not_recorded(scored: Build) -> None:
    """A test set evaluated afterwards would be compared with the held-out scores."""
    callback = Recorder("eval_loss", [0.5, 0.1, 0.5, 0.9, 0.5, 0.0])
    trainer = scored(callback)
    trainer.evaluate()
    assert len(callback.prompts) == 6
    assert trainer.model.best_prompt() == (callback.prompts[1], 0.1)


@pytest.mark.parametrize("disable_tqdm", [True, False])
def test_logs_show_the_prompt(
    disable_tqdm: bool,
    gpt2: Build,
    readable: Build,
    learner: Build,
    rows_for: Build,
    tokenizer_dir: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    seen: list[list[int]] = []

    class Watch(PromptCallback):
        def on_step_end(self, *args: Any, model: Any = None, **kwargs: Any) -> None:
            seen.append(model.prompt_token_ids())

    model = readable(gpt2(), perplexity_weight=0.5)
    options = {"callbacks": [Watch(tokenizer)]}
    trainer = learner(model, rows_for("CAUSAL_LM"), options, disable_tqdm=disable_tqdm, learning_rate=0.4)
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["prompt_text"] for entry in entries] == [tokenizer.decode(ids) for ids in seen]
    assert [entry["prompt/step"] for entry in entries] == [1, 2, 3, 4, 5]
    names = {"prompt/changed_share", "prompt/perplexity_weight", "prompt/prompt_nll"}
    assert all(names <= set(entry) for entry in entries)
    assert all(entry["prompt/perplexity_gradient_norm"] > 0 for entry in entries)
    assert entries[-1]["prompt_text"] in capfd.readouterr().out


def test_logged_share_of_changed_tokens(
    gpt2: Build, readable: Build, learner: Build, rows_for: Build, tokenizer_dir: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    model = readable(gpt2())
    texts = [model.prompt_text(tokenizer)]
    trainer = learner(model, rows_for("CAUSAL_LM"), {"callbacks": [PromptCallback(tokenizer)]}, learning_rate=0.3)
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    texts += [entry["prompt_text"] for entry in entries]
    for entry, old, new in zip(entries, texts, texts[1:], strict=False):
        changed = sum(a != b for a, b in zip(old.split(), new.split(), strict=True))
        assert entry["prompt/changed_share"] == changed / 4
    assert any(entry["prompt/changed_share"] > 0 for entry in entries)


def test_other_models_are_left_alone(gpt2: Build, with_prompt: Build, learner: Build, rows_for: Build) -> None:
    model = with_prompt(gpt2())
    rows = rows_for("CAUSAL_LM")
    options = {"callbacks": [PromptCallback()], "eval_dataset": rows}
    trainer = learner(model, rows, options, eval_strategy="steps", eval_steps=1)
    trainer.train()
    assert not any(name.startswith("prompt") for entry in trainer.state.log_history for name in entry)
