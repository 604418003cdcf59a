"""A discrete prompt whose text survives has nothing between it and its text, however rows are padded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model

from peft_interp import Verbalizer, embedded
from peft_interp.metrics.faithfulness import measure_faithfulness

Build = Callable[..., Any]
QUIET = {"progress": False}


@pytest.mark.parametrize("bos", ["no", "all", "some"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("positions", ["answers", "all"])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_all_three_differentials_are_zero(
    request: Any, readable: Build, words: Any, word_rows: Build, name: str, side: str, bos: str, positions: str,
    aligned: bool,
) -> None:  # fmt: skip
    model = readable(request.getfixturevalue(name)(bos_token_id=1), align_logits_with_labels=aligned)
    found = measure_faithfulness(model, words, word_rows(bos), None, positions, 4, side, **QUIET)
    assert found.rows == 6
    assert found.skipped_rows == 0
    assert found.cosine_distance == found.euclidean_distance == 0
    assert max(found.logit_mse, found.kl, found.js, found.loss_difference) <= 1e-5
    assert found.top1_agreement == 1
    assert found.token_error_rate == 0
    assert found.without.loss != pytest.approx(found.as_prompt.loss, abs=1e-3)  # the prompt matters here


def test_rows_without_padding(llama: Build, readable: Build, words: Any, word_rows: Build) -> None:
    found = measure_faithfulness(readable(llama()), words, word_rows("all"), batch_size=1, **QUIET)
    assert found.logit_mse <= 1e-5


def test_on_the_embedded_model(readable: Build, english: Any, sentiment: Any, answers: list[int]) -> None:
    written = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "Is this film review positive or negative?"}
    where = {"num_virtual_tokens": None, "tokenizer_name_or_path": embedded.MODEL_PATH}
    model = readable(embedded.load_model(), **written, **where)
    rows = sentiment["test"][:40]
    found = measure_faithfulness(model, english, rows, answers, padding_side="left", token_effects=False, **QUIET)
    assert max(found.logit_mse, found.kl, found.js, found.loss_difference, found.token_error_rate) <= 1e-5
    assert found.accuracy_difference == 0
    assert found.as_prompt.accuracy > found.without.accuracy + 0.1


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("positions", ["answers", "all"])
@pytest.mark.parametrize("template", ["{text} {prompt}", "Review: {text}\n{prompt}"])
def test_at_the_end_on_the_embedded_model(
    readable: Build, english: Any, answers: list[int], side: str, positions: str, template: str
) -> None:
    """The prompt right before the label's word; " The review is" brings its own blank, "The review is" needs none."""
    text = "The review is" if template.endswith("\n{prompt}") else " The review is"
    written = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": text, "prompt_position": "end"}
    where = {"num_virtual_tokens": None, "tokenizer_name_or_path": embedded.MODEL_PATH}
    model = readable(embedded.load_model(), **written, **where)
    verbalizer = Verbalizer(template, embedded.TASKS["sentiment"].label_words)
    data = embedded.load_data("sentiment")["test"].select(range(40))
    rows = [verbalizer.encode(english, row["sentence"], row["label"]) for row in data]
    found = measure_faithfulness(model, english, rows, answers, positions, 8, side, **QUIET)
    assert (found.rows, found.skipped_rows) == (40, 0)
    assert found.cosine_distance == found.euclidean_distance == 0
    assert max(found.logit_mse, found.kl, found.js, found.loss_difference, found.token_error_rate) <= 1e-5
    assert found.accuracy_difference == 0
    assert found.without.loss > found.as_prompt.loss + 1  # the prompt acts, so that its place matters
    assert all(effect.kl > 0.01 for effect in found.token_effects)


def test_stock_misplacement_under_left_padding_shows(
    gpt2: Build, readable: Build, words: Any, word_rows: Build
) -> None:
    """The same vectors as a stock adapter: faithful on the right, not on the left (peft #1093)."""
    ours = readable(gpt2())
    stock = get_peft_model(gpt2(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    with torch.no_grad():
        stock.prompt_encoder["default"].embedding.weight.copy_(ours.prompt_encoder["default"].prompt().vectors)
    right = measure_faithfulness(stock, words, word_rows(), **QUIET)
    left = measure_faithfulness(stock, words, word_rows(), padding_side="left", **QUIET)
    assert right.cosine_distance == left.cosine_distance == 0
    assert max(right.logit_mse, right.kl, right.loss_difference) <= 1e-5
    assert left.logit_mse > 0.01
