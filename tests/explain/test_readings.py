"""Hidden states are patched where they are said to be, in models of more than one family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from peft_interp.explain.readings import ASKING, DESCRIBING, VECTORS, model_blocks, patched, readings, vector_states

Build = Callable[..., Any]


@pytest.fixture(params=["gpt2", "llama"])
def model(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)()


@torch.no_grad()
def test_a_models_own_states_change_nothing_and_others_do(model: Any, token_ids: Build) -> None:
    ids = token_ids(1, 9)
    states = model(ids, output_hidden_states=True).hidden_states
    plain = model(ids).logits
    for block in range(len(model_blocks(model))):
        with patched(model_blocks(model)[block], slice(2, 5), states[block][0, 2:5], entering=True):
            assert torch.allclose(model(ids).logits, plain, atol=1e-5)
        with patched(model_blocks(model)[block], slice(2, 5), states[block][0, 5:8], entering=True):
            assert (model(ids).logits - plain)[:, 2:].abs().max() > 1e-2
            assert torch.allclose(model(ids[:, :4]).logits, plain[:, :4], atol=1e-5)  # too short to hold the places
    assert torch.equal(model(ids).logits, plain)


@torch.no_grad()
def test_vectors_stand_among_the_word_embeddings(model: Any, token_ids: Build) -> None:
    ids, others = token_ids(1, 9), token_ids(2, 9)[1:]
    vectors = model.get_input_embeddings()(others[0, :3])
    mixed = torch.cat([ids[:, :4], others[:, :3], ids[:, 7:]], dim=1)
    with patched(model.get_input_embeddings(), slice(4, 7), vectors, entering=False):
        found = model(ids).logits
    assert torch.allclose(found, model(mixed).logits, atol=1e-5)


@torch.no_grad()
def test_states_of_vectors_are_those_that_they_leave_alone(model: Any, token_ids: Build) -> None:
    ids = token_ids(1, 4)
    found = vector_states(model, model.get_input_embeddings()(ids)[0])
    expected = model(ids, output_hidden_states=True).hidden_states
    assert len(found) == len(model_blocks(model))
    for one, other in zip(found, expected, strict=False):
        assert torch.allclose(one, other[0], atol=1e-5)


def test_the_model_goes_on_from_the_vectors(planted: Build, tokenizer: Any) -> None:
    model = planted()
    base, vectors = model.get_base_model(), model.prompt_encoder["default"].embedding.weight.detach()
    for frame in (*ASKING, *DESCRIBING):
        assert frame.count(VECTORS) == 1
    said = [readings(base, tokenizer, ASKING[0], vectors, None, 8, [0], [], count=3, seed=seed) for seed in (0, 0, 1)]
    assert said[0] == said[1] != said[2]
    assert all(text and "\n" not in text for text in said[0])


def test_a_model_without_layers_is_refused() -> None:
    class Flat(torch.nn.Module):
        config: Any = type("Config", (), {"get_text_config": lambda self: self, "num_hidden_layers": 3})()

    with pytest.raises(ValueError, match="Flat has no list of 3 layers"):
        model_blocks(Flat())
