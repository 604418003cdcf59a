"""Reference levels: ordered, monotone, measured once, kept off the user's model."""

from __future__ import annotations

import gc
import math
from typing import Any

import pytest
import torch

from peft_interp import embedded
from peft_interp.metrics import references
from peft_interp.metrics.references import human_prompts, reference_levels


def test_human_prompts_are_likelier_than_shuffled_ones_and_those_than_random_tokens(model: Any, tokenizer: Any) -> None:
    for length in (None, 8):
        medians = reference_levels(model, tokenizer, length).medians("nll")
        assert medians["human"] < medians["shuffled"] - 1 < medians["random"] - 1


def test_percentiles_never_fall_as_a_prompt_gets_better(model: Any, tokenizer: Any) -> None:
    levels = reference_levels(model, tokenizer, 8)
    by_nll = [levels.percentile("nll", nll) for nll in (12, 8, 5, 4, 3, 2, 0)]
    assert by_nll == sorted(by_nll)
    assert (by_nll[0], by_nll[-1]) == (0, 100)
    by_words = [levels.percentile("dictionary_share", share, "higher") for share in (0, 0.5, 0.9, 1)]
    assert by_words == sorted(by_words)
    assert levels.percentile("nll", levels.medians("nll")["human"]) == pytest.approx(50, abs=2)


def test_the_position_is_0_for_the_human_level_and_1_for_the_shuffled_one(model: Any, tokenizer: Any) -> None:
    levels = reference_levels(model, tokenizer, 8)
    medians = levels.medians("nll")
    assert levels.nll_position(medians["human"]) == 0
    assert levels.nll_position(medians["shuffled"]) == 1
    assert math.isnan(levels.nll_position(math.nan))


def test_levels_are_measured_once_for_a_model_and_length(model: Any, tokenizer: Any) -> None:
    assert reference_levels(model, tokenizer, 8) is reference_levels(model, tokenizer, 8)
    assert reference_levels(model, tokenizer, 8) is not reference_levels(model, tokenizer, 5)
    assert reference_levels(model, tokenizer, 500) is reference_levels(model, tokenizer)


def test_nothing_is_stored_on_the_model_and_no_weight_is_changed(model: Any, tokenizer: Any) -> None:
    attributes, modes = set(vars(model)), [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reference_levels(model, tokenizer, 6)
    assert set(vars(model)) == attributes
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_trained_model_is_measured_anew_and_a_dropped_one_forgotten(tokenizer: Any) -> None:
    model = embedded.load_model()
    first = reference_levels(model, tokenizer, 5)
    with torch.no_grad():
        model.transformer.ln_f.weight.mul_(0.5)
    second = reference_levels(model, tokenizer, 5)
    assert first.medians("nll") != second.medians("nll")
    known = len(references._levels)
    del model
    gc.collect()
    assert len(references._levels) == known - 1


def test_a_length_without_anything_to_predict_is_refused(model: Any, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="must be >= 2"):
        reference_levels(model, tokenizer, 1)


def test_the_shipped_prompts_are_short_plain_and_of_known_source() -> None:
    assert len(set(human_prompts())) == 200
    assert all(3 <= len(text.split()) <= 30 and text.isascii() for text in human_prompts())
    notice = (references.HUMAN_PROMPTS.parent / "README.md").read_text()
    assert all(word in notice for word in ("CC0-1.0", "Apache-2.0", "self-instruct", "instruction-induction"))
