"""Mistakes get an error that says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from peft_interp import PromptSearchConfig, RLPromptConfig

Build = Callable[..., Any]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_perplexity": 0.5}, "max_perplexity=0.5.*> 1"),
        ({"target_percentile": 101.0}, r"target_percentile=101.0.*\[0, 100\]"),
        ({"max_perplexity": 9.0, "target_percentile": 50.0}, "two limits"),
        ({"shortest_prompt": 1}, "nothing predicts a single token"),
        ({"population_size": 0}, "population_size=0"),
        ({"exploration": 1.5}, "exploration=1.5"),
        ({"proposal_top_p": 0.0}, "proposal_top_p"),
        ({"edit_share": -1.0}, "edit_share=-1.0"),
        ({"continuation_share": 0.0, "rewrite_share": 0.0, "edit_share": 0.0}, "edit_share must be > 0; all are 0"),
        ({"task_reward": "best"}, "task_reward='best'"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        PromptSearchConfig(str(tmp_path), **settings)


def test_another_trainers_arguments(searcher: Build, adapter: Build, reviews: Any, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="pass a `PromptSearchConfig`"):
        type(searcher())(adapter(), RLPromptConfig("out"), reviews, None, tokenizer)


def test_lengths_that_leave_nothing(searcher: Build) -> None:
    with pytest.raises(ValueError, match=r"shortest_prompt=7.*6 tokens"):
        searcher(shortest_prompt=7)


def test_a_start_that_does_not_fit(searcher: Build) -> None:
    with pytest.raises(ValueError, match=r"Judge this long.*has 16 tokens and the adapter cannot hold it"):
        searcher(start_texts=["Judge this long and winding review of a film that I have never seen"])
    with pytest.raises(ValueError, match="cannot hold"):
        searcher(start_texts=["Judge é \u2603"])


def test_a_task_model_that_is_no_language_model_needs_a_judge(tokenizer: Any, searcher: Build, reviews: Any) -> None:
    from peft import get_peft_model
    from transformers import RobertaConfig, RobertaForMaskedLM

    from peft_interp import InterpPromptConfig, embedded

    tiny = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    config = RobertaConfig(vocab_size=len(tokenizer), pad_token_id=0, bos_token_id=1, eos_token_id=2, **tiny)
    files = {"tokenizer_name_or_path": embedded.MODEL_PATH}
    model = get_peft_model(
        RobertaForMaskedLM(config), InterpPromptConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=4, **files)
    )
    rows = [{"input_ids": [300, 301, 3], "labels": [-100, -100, 400 + i]} for i in range(4)]
    options = {"train_dataset": rows, "eval_dataset": None, "verbalizer": None}
    with pytest.raises(ValueError, match="pass one with the same tokenizer as `perplexity_model`"):
        searcher(model, options)


def test_a_checkpoint_of_something_else(searcher: Build, adapter: Build, tmp_path: Path) -> None:
    adapter().save_pretrained(str(tmp_path / "checkpoint-1"))
    torch.save({}, tmp_path / "checkpoint-1" / "optimizer.pt")
    with pytest.raises((ValueError, FileNotFoundError, OSError)):
        searcher().train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
