"""What cannot be searched is refused in words that say what to do."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from transformers import TrainingArguments

from peft_interp import Verbalizer
from peft_interp.scoring.archive import Archive

Build = Callable[..., Any]


def test_no_labels_and_no_reward(searcher: Build) -> None:
    options = {"verbalizer": None, "train_dataset": [{"question": "w7"}], "eval_dataset": None}
    with pytest.raises(ValueError, match=r"no labels and no reward: .* pass a `verbalizer` .* or pass `reward_funcs`"):
        searcher(options=options)


def test_empty_data(searcher: Build) -> None:
    with pytest.raises(ValueError, match=r"`train_dataset` is empty"):
        searcher(options={"train_dataset": []})
    with pytest.raises(ValueError, match=r"`train_dataset` is needed"):
        searcher(options={"train_dataset": None})


def test_a_row_without_any_label(searcher: Build) -> None:
    rows = [{"input_ids": [7, 8], "labels": [-100, 8]}, {"input_ids": [7, 8], "labels": [-100, -100]}]
    with pytest.raises(ValueError, match=r"row 1 of `train_dataset` has no label"):
        searcher(options={"train_dataset": rows, "verbalizer": None})


def test_labels_that_are_no_label_words(searcher: Build) -> None:
    with pytest.raises(ValueError, match=r"`train_dataset` has labels \['w9'\] that are none of the label words"):
        searcher(options={"train_dataset": [{"input_ids": [7, 9], "labels": [-100, 9]}]})


def test_a_label_word_that_begins_another_is_named(searcher: Build) -> None:
    with pytest.raises(ValueError, match=r"w6"):  # it could never win
        searcher(options={"verbalizer": Verbalizer("{text} w4", ("w6", "w6 w7"))})


def test_missing_text_column(searcher: Build) -> None:
    with pytest.raises(ValueError, match=r"no column \['sentence'\], only .*`text_column=`"):
        searcher(options={"train_dataset": [{"text": "w7", "label": 0}]})


def test_a_template_that_does_not_fit_the_adapter(searcher: Build) -> None:
    with pytest.raises(ValueError, match=r"prompt at the end, but the adapter's `prompt_position='start'`"):
        searcher(options={"verbalizer": Verbalizer("{text} {prompt}", ("w5", "w6"))})


def test_models_and_arguments_of_another_kind(searcher: Build, gpt2: Build, prompted: Build) -> None:
    with pytest.raises(ValueError, match=r"without an InterpPrompt adapter"):
        searcher(gpt2())
    with pytest.raises(ValueError, match=r"without an InterpPrompt adapter"):
        searcher(get_peft_model(gpt2(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)))
    with pytest.raises(ValueError, match=r"`projection_metric='none'` is a soft prompt"):
        searcher(prompted(projection_metric="none"))
    with pytest.raises(ValueError, match=r"`processing_class` is needed"):
        searcher(options={"processing_class": None})
    with pytest.raises(ValueError, match=r"must be one data set"):
        searcher(options={"eval_dataset": {"a": [], "b": []}})
    with pytest.raises(ValueError, match=r"pass an `RLPromptConfig`"):
        searcher(options={"args": TrainingArguments("out", report_to=[])})


def test_a_single_prompt_has_nothing_to_be_compared_with(searcher: Build) -> None:
    with pytest.raises(ValueError, match=r"at least two prompts"):
        searcher(prompts_per_step=1)
    searcher(prompts_per_step=1, gradient_accumulation_steps=2).train()


def test_weights_without_what_they_weigh(searcher: Build, prompted: Build) -> None:
    with pytest.raises(ValueError, match=r"`scrutability_reward_weight=0.2`.*shuffled.*`perplexity_model`"):
        searcher(scrutability_reward_weight=0.2)
    with pytest.raises(ValueError, match=r"`reward_weights=\[1.0\]` must be 0 finite numbers"):
        searcher(reward_weights=[1.0])
    with pytest.raises(ValueError, match=r"`task_reward='gap'` needs label words"):
        searcher(
            options={"verbalizer": None, "train_dataset": [{"input_ids": [7, 9], "labels": [-100, 9]}]},
            task_reward="gap",
        )
    with pytest.raises(ValueError, match=r"`task_reward='none'` without `reward_funcs`"):
        searcher(task_reward="none")
    with pytest.raises(ValueError, match=r"a prompt of at least two tokens"):
        searcher(prompted(num_virtual_tokens=1), perplexity_reward_weight=0.2)


def test_constant_rewards_warn_once(searcher: Build) -> None:
    constant = {"reward_funcs": lambda completions, **_: [1.0] * len(completions), "verbalizer": None}
    rows = [{"question": "w7"}]
    trainer = searcher(options={**constant, "train_dataset": rows, "eval_dataset": None}, max_steps=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.train()
    said = [str(w.message) for w in caught if "same reward" in str(w.message)]
    assert len(said) == 1
    assert "from which nothing can be learned" in said[0]


def test_a_broken_model_is_named_with_the_prompt(searcher: Build, prompted: Build) -> None:
    model = prompted()
    with torch.no_grad():
        model.get_base_model().transformer.h[0].mlp.c_fc.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"the score '\w+' of the prompt 'w.*' is nan"):
        searcher(model).train()


def test_a_loss_that_is_not_finite_stops_the_run(searcher: Build, tmp_path: Path) -> None:
    trainer = searcher(learning_rate=1e30, logging_steps=100)
    with pytest.raises(FloatingPointError, match=r"the loss is \w+ at step \d\. The adapter still holds the best"):
        trainer.train()
    assert trainer.model.prompt_token_ids() == list(trainer.search.best.ids)
    assert Archive.read(tmp_path / "run" / "archive.jsonl").records
