"""What cannot work is refused with the value, what is allowed, and a remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import BertForTokenClassification, GPT2Model

from peft_interp import InterpPromptConfig

Build = Callable[..., Any]


@pytest.fixture(params=["CAUSAL_LM", "TOKEN_CLS"])
def model(request: pytest.FixtureRequest, causal: Build, bert: Build, readable: Build) -> Any:
    base = causal("gpt2") if request.param == "CAUSAL_LM" else bert(BertForTokenClassification)
    return readable(base, request.param)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [(2, 9), (2, 1, 5, 5), (3, 5)])
def test_mask_of_a_wrong_shape(model: Any, token_ids: Build, shape: tuple[int, ...], training: bool) -> None:
    ids = token_ids(2, 5)
    message = rf"`attention_mask` has shape \({', '.join(map(str, shape))}\).* needs one of shape \(2, 5\)"
    with pytest.raises(ValueError, match=message):
        model.train(training)(input_ids=ids, attention_mask=torch.ones(shape), labels=ids % 2)


def test_positions_of_packed_rows(model: Any, token_ids: Build) -> None:
    ids = token_ids(1, 5)
    with pytest.raises(ValueError, match=r"`position_ids` other than 0, 1, 2.*pad the batch instead of packing"):
        model(input_ids=ids, position_ids=torch.tensor([[0, 1, 2, 0, 1]]))
    with pytest.raises(ValueError, match="`position_ids` other than"):
        model(input_ids=ids, position_ids=torch.arange(3, 8).unsqueeze(0))


@pytest.mark.parametrize("training", [False, True])
def test_ids_and_embeddings(model: Any, token_ids: Build, training: bool) -> None:
    ids = token_ids(2, 5)
    with pytest.raises(ValueError, match="exactly one of `input_ids` and `inputs_embeds`"):
        model.train(training)(input_ids=ids, inputs_embeds=model.word_embeddings(ids), labels=ids % 2)
    with pytest.raises(ValueError, match="exactly one of `input_ids` and `inputs_embeds`"):
        model.train(training)(attention_mask=torch.ones(2, 5), labels=ids % 2)


def test_perplexity_without_a_head(bert: Build, readable: Build, token_ids: Build) -> None:
    ids = token_ids(2, 5)
    model = readable(bert(BertForTokenClassification), "TOKEN_CLS", perplexity_weight=0.5).train()
    message = r"`perplexity_weight=0.5` needs .*BertForTokenClassification has not; set `perplexity_model_name_or_path`"
    with pytest.raises(ValueError, match=message):
        model(input_ids=ids, labels=ids % 2)
    assert model.eval()(input_ids=ids, labels=ids % 2).loss > 0


def test_scorer_that_cannot_score(causal: Build, readable: Build, gpt2: Build, bert: Build) -> None:
    model = readable(causal("llama"))
    with pytest.raises(ValueError, match=r"GPT2Model has no causal language-model head; use an AutoModelForCausalLM"):
        model.set_perplexity_model(gpt2(GPT2Model))
    with pytest.raises(ValueError, match=r"knows 640 tokens, the task model 64.*Use a causal LM of the same family"):
        model.set_perplexity_model(gpt2(vocab_size=640))


def test_prompt_longer_than_the_context(causal: Build) -> None:
    config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=64)
    with pytest.raises(ValueError, match=r"`num_virtual_tokens=64` leaves no room.*64 tokens; use a shorter prompt"):
        get_peft_model(causal("llama"), config)


def test_unknown_adapter(causal: Build, readable: Build) -> None:
    model = readable(causal("llama"))
    calls: list[Callable[[], Any]] = [
        lambda: model.prompt_token_ids("other"),
        lambda: model.best_prompt("other"),
        lambda: model.keep_best_prompt(1.0, adapter_name="other"),
        lambda: model.use_prompt([3, 4, 5, 6], "other"),
        lambda: model.prompt_statistics("other"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"'other' is no InterpPrompt adapter; adapters here: \['default'\]"):
            call()
    with pytest.raises(ValueError, match="not found"):
        model.set_adapter("other")


def test_prompt_that_does_not_fit(causal: Build, readable: Build) -> None:
    model = readable(causal("llama"))
    before = model.prompt_token_ids()
    with pytest.raises(ValueError, match=r"expected 4 token ids, got shape \(2,\)"):
        model.use_prompt([3, 4])
    for ids in ([3, 4, 5, 64], [3, 4, 5, -1]):
        with pytest.raises(ValueError, match=r"do not fit a vocabulary of 64"):
            model.use_prompt(ids)
    assert model.prompt_token_ids() == before


@pytest.mark.parametrize("resize", [False, True])
@pytest.mark.parametrize(
    "ids",
    ["w3 w4", ["w3", "w4"], [[3, 4, 5, 6]], {"input_ids": [3, 4, 5, 6]}, ([3, 4, 5, 6], 0.5), [3.5, 4.0], 3, None],
)
def test_a_prompt_that_is_no_list_of_ids(causal: Build, readable: Build, ids: Any, resize: bool) -> None:
    model = readable(causal("llama"))
    before = model.prompt_token_ids()
    with pytest.raises(ValueError, match=r"`token_ids=.*` must be one list of token ids; it is made by `tokenizer"):
        model.use_prompt(ids, resize=resize)
    assert model.prompt_token_ids() == before


def test_labels_taken_away(causal: Build, readable: Build, token_ids: Build) -> None:
    """Trainer does so for label smoothing, but passes their number."""
    model = readable(causal("llama")).train()
    with pytest.raises(ValueError, match=r"Set `label_smoothing_factor=0`.*align_logits_with_labels=True"):
        model(input_ids=token_ids(2, 5), num_items_in_batch=10)
    aligned = readable(causal("llama"), align_logits_with_labels=True).train()
    assert aligned(input_ids=token_ids(2, 5), num_items_in_batch=10).logits.shape == (2, 5, 64)


def test_a_loss_that_is_not_finite(causal: Build, readable: Build, token_ids: Build) -> None:
    model = readable(causal("llama")).train()
    latent = model.prompt_encoder["default"].latent
    model.base_model.lm_head.weight.data[5, 0] = float("inf")
    before = latent.detach().clone()
    with pytest.raises(FloatingPointError, match=r"the training loss is (nan|inf) at step 0. The prompt is still as"):
        model(input_ids=token_ids(2, 5), labels=token_ids(2, 5))
    assert torch.equal(latent, before)
    latent.data[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="latent vectors contain NaN"):
        model(input_ids=token_ids(2, 5), labels=token_ids(2, 5))


def test_task_type_is_needed(causal: Build) -> None:
    with pytest.raises(ValueError, match=r"`task_type=None` is not enough for a prompt.*use CAUSAL_LM"):
        get_peft_model(causal("llama"), InterpPromptConfig(num_virtual_tokens=4))


def test_one_label_for_each_row_of_a_language_model(causal: Build, readable: Build, token_ids: Build) -> None:
    model, ids = readable(causal("gpt2")), token_ids(2, 5)
    with pytest.raises(ValueError, match=r"`labels` has shape \(2,\).*\(2, 5\).*Verbalizer"):
        model(input_ids=ids, labels=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"`labels` has shape \(2, 4\).*pad labels with -100"):
        model(input_ids=ids, labels=ids[:, 1:])
    with pytest.raises(ValueError, match=r"`input_ids` has shape \(5,\) and must be \(batch, length\).*unsqueeze"):
        model(input_ids=ids[0])


@pytest.mark.parametrize("task_type", ["SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "SEQ_2_SEQ_LM"])
def test_a_language_model_for_another_task(causal: Build, task_type: str) -> None:
    with pytest.raises(ValueError, match=rf"`task_type='{task_type}'` needs a model with that head, and GPT2LMHead"):
        get_peft_model(causal("gpt2"), InterpPromptConfig(task_type=task_type, num_virtual_tokens=4))
