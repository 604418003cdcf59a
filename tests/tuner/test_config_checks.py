"""A value that cannot work is refused at once, with the value, what is allowed and what to do."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from peft import PromptTuningConfig

from peft_interp.tuner.config import InterpPromptConfig

TEXT = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "It was", "tokenizer_name_or_path": "unused"}

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"projection_metric": "manhattan"}, r"`projection_metric='manhattan'`.*cosine, dot, euclidean, none"),
    ({"perplexity_gradient": "left"}, r"`perplexity_gradient='left'`.*both, context, target"),
    ({"perplexity_combination": "sum"}, r"`perplexity_combination='sum'`.*additive, convex"),
    ({"allowed_tokens": "latin"}, r"`allowed_tokens='latin'`.*all, printable, ascii, lines, words"),
    ({"init_text_fit": "stretch"}, r"`init_text_fit='stretch'`.*warn, repeat, truncate, error"),
    ({"prompt_position": "middle"}, r"`prompt_position='middle'`.*start, end"),
    ({"prompt_tuning_init": "text"}, r"`prompt_tuning_init='text'`.*TEXT"),
    ({"perplexity_weight": -0.1}, r"`perplexity_weight=-0.1` must be a finite number >= 0; use 0 for plain PEZ"),
    ({"perplexity_weight": float("nan")}, r"`perplexity_weight=nan` must be a finite number >= 0; use 0"),
    ({"perplexity_weight": float("inf")}, r"`perplexity_weight=inf` must be a finite number >= 0; use 0"),
    (
        {"perplexity_weight": 1.5, "perplexity_combination": "convex"},
        r"`perplexity_weight=1.5` must be in \[0, 1\] for 'convex'; use 'additive' or less",
    ),
    (
        {"perplexity_weight": 0.1, "projection_metric": "none"},
        r"`perplexity_weight=0.1` and .* need a projected prompt.*use 'cosine', 'dot' or 'euclidean', or weight 0",
    ),
    ({"target_perplexity": 1.0}, r"`target_perplexity=1.0` must be a finite number > 1"),
    ({"target_perplexity": "40"}, r"`target_perplexity='40'` must be a number"),
    ({"target_perplexity": 40.0, "projection_metric": "none"}, r"`target_perplexity=40.0` need a projected prompt"),
    ({"perplexity_start_step": -1}, r"`perplexity_start_step=-1` must be >= 0"),
    ({"perplexity_warmup_steps": -1}, r"`perplexity_warmup_steps=-1` must be >= 0"),
    ({"stuck_patience": 0}, r"`stuck_patience=0` must be >= 1"),
    ({"num_virtual_tokens": 0}, r"`num_virtual_tokens=0` must be 1 to 100,000; leave it out for 10"),
    ({"init_text_fit": "repeat"}, r"`init_text_fit='repeat'` only applies to `prompt_tuning_init='TEXT'`; got"),
    ({"init_words": "great"}, r"`init_words='great'` must be a list of words; write `init_words=\['great'\]`"),
    ({"banned_words": "great"}, r"`banned_words='great'` must be a list of words; write `banned_words=\['great'\]`"),
    ({"banned_words": [7]}, r"`banned_words=\[7\]` must be a list of words"),
    ({"init_words": 7}, r"`init_words=7` must be a list of words"),
    ({"banned_token_ids": "great"}, r"`banned_token_ids='great'` must be a list of token ids"),
    ({"banned_token_ids": 7}, r"`banned_token_ids=7` must be a list of token ids"),
    ({"perplexity_weight": "0.3"}, r"`perplexity_weight='0.3'` must be a number"),
    ({"perplexity_weight": None}, r"`perplexity_weight=None` must be a number"),
    ({"num_virtual_tokens": 8.0}, r"`num_virtual_tokens=8.0` must be a whole number"),
    ({"num_virtual_tokens": "8"}, r"`num_virtual_tokens='8'` must be a whole number"),
    ({"stuck_patience": True}, r"`stuck_patience=True` must be a whole number"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED, ids=[str(settings) for settings, _ in REFUSED])
def test_a_bad_value_is_refused_with_a_remedy(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InterpPromptConfig(task_type="CAUSAL_LM", **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"perplexity_weight": 1.0, "perplexity_combination": "convex"},
        {"perplexity_weight": 50.0},
        {"projection_metric": "none"},
        {"init_text_fit": "repeat", **TEXT},
        {"perplexity_start_step": 0, "perplexity_warmup_steps": 0, "stuck_patience": 1, "num_virtual_tokens": 1},
    ],
)
def test_values_at_the_edge_are_accepted(settings: dict[str, Any]) -> None:
    config = InterpPromptConfig(task_type="CAUSAL_LM", **settings)
    assert all(getattr(config, name) == value for name, value in settings.items())


def test_no_argument_is_needed_to_construct_a_config() -> None:
    config = InterpPromptConfig()
    assert config.num_virtual_tokens == 10
    assert config.perplexity_weight == 0
    assert config.projects


@pytest.mark.parametrize("task", ["SEQ_CLS", "SEQ_2_SEQ_LM", "TOKEN_CLS", "QUESTION_ANS"])
def test_only_a_causal_model_has_an_answer_to_stand_before(task: str) -> None:
    found = rf"`prompt_position='end'`.*only CAUSAL_LM and .* have; got `task_type='{task}'`"
    with pytest.raises(ValueError, match=found):
        InterpPromptConfig(task_type=task, prompt_position="end")
    assert InterpPromptConfig(task_type=task).prompt_position == "start"


def test_only_a_text_may_leave_the_length_open() -> None:
    assert InterpPromptConfig(**TEXT).num_virtual_tokens is None
    assert InterpPromptConfig(prompt_tuning_init="RANDOM").num_virtual_tokens == 10
    assert InterpPromptConfig(num_virtual_tokens=3, **TEXT).num_virtual_tokens == 3


def test_a_missing_task_type_is_named_when_the_config_is_used() -> None:
    with pytest.raises(ValueError, match=r"`task_type=None` is not enough.*CAUSAL_LM.*FEATURE_EXTRACTION"):
        _ = InterpPromptConfig().is_prompt_learning
    assert InterpPromptConfig(task_type="SEQ_CLS").is_prompt_learning


def test_every_field_of_ours_has_a_help_text() -> None:
    stock = {field.name for field in fields(PromptTuningConfig)}
    ours = [field for field in fields(InterpPromptConfig) if field.name not in stock]
    assert len(ours) > 10
    assert [field.name for field in ours if not field.metadata.get("help")] == []
