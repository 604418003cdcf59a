"""How stock prompt tuning generates: what it calls, what it swaps, what it cannot do."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import PeftModel, PeftModelForCausalLM
from transformers import GenerationMixin

from peft_interp.inference.compat import cache_argument

Build = Callable[..., Any]
DROPPED = "Position ids are not supported"
# Stock drops position ids at every generate step and warns about it; one test below counts that.
ignore_dropped = pytest.mark.filterwarnings(f"ignore:{DROPPED}:UserWarning")


@pytest.fixture
def knows_the_cache(gpt2: Build) -> None:
    """PEFT 0.21.2 looks for the cache under the name that transformers dropped in 5.24, and starts anew every step."""
    if cache_argument(gpt2()) != "past_key_values":
        pytest.xfail("stock prompt tuning generates wrong tokens with this transformers and PEFT 0.21.2")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `PeftModelForCausalLM.prepare_inputs_for_generation` returned, step by step."""
    seen: list[dict[str, Any]] = []
    stock = PeftModelForCausalLM.prepare_inputs_for_generation

    def record(self: PeftModel, *args: Any, **kwargs: Any) -> dict[str, Any]:
        seen.append(stock(self, *args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(PeftModelForCausalLM, "prepare_inputs_for_generation", record)
    return seen


def test_every_step_warns_about_position_ids(gpt2: Build, with_prompt: Build, token_ids: Build) -> None:
    """Promise: ours uses the positions that `generate` computed, and is quiet."""
    model = with_prompt(gpt2())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.generate(input_ids=token_ids(1, 5), max_new_tokens=3, min_new_tokens=3)
    assert [str(w.message).startswith(DROPPED) for w in caught] == [True] * 3


@ignore_dropped
def test_generate_hands_over_positions_of_the_text_alone(gpt2: Build, with_prompt: Build) -> None:
    """Promise: in `generate` ours only adds the prompt's length to the positions it is given."""
    model = with_prompt(gpt2())
    given: list[Any] = []
    prepare = model.base_model_prepare_inputs_for_generation

    def record(*args: Any, **kwargs: Any) -> dict[str, Any]:
        inputs = prepare(*args, **kwargs)
        given.append(inputs["position_ids"].tolist())
        return inputs

    model.base_model_prepare_inputs_for_generation = record
    ids, mask = torch.tensor([[0, 0, 7, 8]]), torch.tensor([[0, 0, 1, 1]])
    model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=2, min_new_tokens=2)
    assert given == [[[0, 0, 0, 1]], [[2]]]


@ignore_dropped
@pytest.mark.usefixtures("knows_the_cache")
def test_prompt_is_injected_in_the_first_step_only(
    gpt2: Build, with_prompt: Build, token_ids: Build, steps: list[dict[str, Any]]
) -> None:
    """Promise: ours prepares the prefill; later steps read the prompt from the cache."""
    model, ids = with_prompt(gpt2()), token_ids(2, 5)
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=3, min_new_tokens=3)
    first, *later = steps
    assert first["input_ids"] is None
    assert first["inputs_embeds"].shape == (2, 9, 32)
    assert [tuple(step["input_ids"].shape) for step in later] == [(2, 1)] * 2
    assert ["inputs_embeds" in step for step in later] == [False] * 2
    assert [step["attention_mask"].shape[1] for step in steps] == [9, 10, 11]
    assert [step["position_ids"] for step in steps] == [None] * 3


@ignore_dropped
def test_mask_of_ones_never_arrives(
    gpt2: Build, with_prompt: Build, token_ids: Build, steps: list[dict[str, Any]]
) -> None:
    """Promise: ours copes without a mask in `generate`; transformers drops one without pads."""
    model, ids = with_prompt(gpt2()), token_ids(1, 5)
    model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=2)
    assert [step.get("attention_mask") for step in steps] == [None] * len(steps)


@ignore_dropped
@pytest.mark.usefixtures("knows_the_cache")
def test_without_cache_the_prompt_is_injected_every_time(
    gpt2: Build, with_prompt: Build, token_ids: Build, steps: list[dict[str, Any]]
) -> None:
    """Promise: `use_cache=False` generates the same tokens in ours as with the cache."""
    model, ids = with_prompt(gpt2()), token_ids(1, 5)
    settings = {"input_ids": ids, "max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
    uncached = model.generate(**settings, use_cache=False)
    assert [step["inputs_embeds"].shape[1] for step in steps] == [9, 10, 11]
    assert torch.equal(uncached, model.generate(**settings))


@ignore_dropped
def test_beams_repeat_rows_before_the_prompt_is_added(
    gpt2: Build, with_prompt: Build, token_ids: Build, steps: list[dict[str, Any]]
) -> None:
    """Promise: beam search and several return sequences need nothing special of ours."""
    model = with_prompt(gpt2())
    model.generate(input_ids=token_ids(2, 5), max_new_tokens=2, num_beams=3)
    assert steps[0]["inputs_embeds"].shape[0] == 6


@ignore_dropped
def test_left_padding_changes_the_first_generated_score(gpt2: Build, with_prompt: Build, token_ids: Build) -> None:
    """Promise: a row generates the same alone and in a padded batch; in stock it does not."""
    model, ids = with_prompt(gpt2()), token_ids(1, 5)
    rows = torch.cat([ids.new_zeros(1, 3), ids], dim=1)
    settings = {"max_new_tokens": 1, "output_logits": True, "return_dict_in_generate": True}
    alone = model.generate(input_ids=ids, **settings).logits[0]
    beside = model.generate(input_ids=rows, attention_mask=(rows > 0).long(), **settings).logits[0]
    assert (alone - beside).abs().max() > 0.1


@ignore_dropped
def test_generate_swaps_the_method_of_the_base_model(
    gpt2: Build, t5: Build, with_prompt: Build, token_ids: Build
) -> None:
    """Promise: ours leaves the base usable; stock leaves an attribute, Seq2Seq the swapped one."""
    name, ids = "prepare_inputs_for_generation", token_ids(1, 5)
    causal, seq2seq = with_prompt(gpt2()), with_prompt(t5(), "SEQ_2_SEQ_LM")
    for model in (causal, seq2seq):
        assert name not in vars(model.base_model)
        model.generate(input_ids=ids, max_new_tokens=1)
    assert vars(causal.base_model)[name].__self__ is causal.base_model
    assert vars(seq2seq.base_model)[name].__self__ is seq2seq


@ignore_dropped
@pytest.mark.parametrize(
    ("new_tokens", "error", "message"),
    [
        # The cache is made for input + new tokens; the prompt does not fit.
        (2, IndexError, "out of bounds"),
        # With room enough, PEFT asks for an argument that transformers 5 no longer passes.
        (8, KeyError, "cache_position"),
    ],
)
def test_static_cache_is_broken(
    gpt2: Build,
    with_prompt: Build,
    token_ids: Build,
    new_tokens: int,
    error: type[Exception],
    message: str,
) -> None:
    """Promise: ours works with a static cache or refuses in words; stock crashes."""
    model = with_prompt(gpt2())
    settings = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
    with pytest.raises(error, match=message):
        model.generate(input_ids=token_ids(1, 5), cache_implementation="static", **settings)
    signature = inspect.signature(GenerationMixin.prepare_inputs_for_generation)
    assert "cache_position" not in signature.parameters


def test_generate_from_embeddings_is_refused(gpt2: Build, with_prompt: Build, token_ids: Build) -> None:
    """Promise: `generate(inputs_embeds=...)` is not offered; stock's signature hides support."""
    model = with_prompt(gpt2())
    with pytest.raises(ValueError, match="doesn't have its forwarding implemented"):
        model.generate(inputs_embeds=model.word_embeddings(token_ids(1, 5)), max_new_tokens=1)


def test_encoder_decoder_takes_keywords_only(t5: Build, with_prompt: Build, token_ids: Build) -> None:
    """Promise: ours keeps stock's call for SEQ_2_SEQ_LM: `generate(input_ids=...)`."""
    model, ids = with_prompt(t5(), "SEQ_2_SEQ_LM"), token_ids(1, 5)
    with pytest.raises(TypeError, match="takes 1 positional argument"):
        model.generate(ids)
    with pytest.raises(ValueError, match="input_ids must be provided"):
        model.generate(inputs_embeds=model.word_embeddings(ids))


def test_encoder_decoder_prompt_enters_before_generate(
    t5: Build, with_prompt: Build, token_ids: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: for SEQ_2_SEQ_LM our generate only has to build the encoder's input."""
    model, ids = with_prompt(t5(), "SEQ_2_SEQ_LM"), token_ids(2, 5)
    received: dict[str, Any] = {}
    monkeypatch.setattr(model.base_model, "generate", lambda **kwargs: received.update(kwargs))
    model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=2)
    assert set(received) == {"inputs_embeds", "attention_mask", "max_new_tokens"}
    assert received["inputs_embeds"].shape == (2, 9, 32)
    assert received["attention_mask"].shape == (2, 9)
