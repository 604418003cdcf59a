"""What a user hands to `generate` sees the ids it sees with stock PEFT; penalties of `generate` see the prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

Build = Callable[..., Any]


class Seen(LogitsProcessor):
    """Remembers the ids it was shown."""

    def __init__(self) -> None:
        self.ids: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.ids.append(input_ids.clone())
        return scores


class Stop(StoppingCriteria):
    """The same, and never stops."""

    def __init__(self) -> None:
        self.ids: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self.ids.append(input_ids.clone())
        return torch.zeros(len(input_ids), dtype=torch.bool)


class Stream(BaseStreamer):
    def __init__(self) -> None:
        self.put_ids: list[list[int]] = []
        self.ended = False

    def put(self, value: torch.Tensor) -> None:
        self.put_ids.append(value.flatten().tolist())

    def end(self) -> None:
        self.ended = True


ROWS = {
    "left padding and BOS": ([[0, 0, 1, 9, 8], [1, 5, 6, 7, 3]], [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]),
    "plain": ([[9, 8, 4], [5, 6, 7]], [[1, 1, 1], [1, 1, 1]]),
}


@pytest.mark.filterwarnings("ignore:Position ids are not supported")  # stock PEFT's
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("settings", [{}, {"prompt_position": "end"}, {"projection_metric": "none"}])
@pytest.mark.parametrize("beams", [1, 3])
def test_users_processors_and_criteria_see_no_prompt(
    rows: str, settings: dict[str, Any], beams: int, gpt2: Build, readable: Build, with_prompt: Build
) -> None:
    ids, mask = (torch.tensor(x) for x in ROWS[rows])
    extras = {"max_new_tokens": 3, "do_sample": False, "num_beams": beams, "eos_token_id": None, "pad_token_id": 0}
    seen = {}
    for name, model in {"ours": readable(gpt2(), **settings), "stock": with_prompt(gpt2())}.items():
        processor, stop = Seen(), Stop()
        given = {
            "logits_processor": LogitsProcessorList([processor]),
            "stopping_criteria": StoppingCriteriaList([stop]),
        }
        model.eval().generate(input_ids=ids, attention_mask=mask, **extras, **given)
        seen[name] = (processor.ids, stop.ids)
    for ours, stock in zip(seen["ours"], seen["stock"], strict=True):
        assert [x.shape for x in ours] == [x.shape for x in stock]
        for x in ours:
            assert torch.equal(x[:, : ids.shape[1]], ids.repeat_interleave(len(x) // 2, dim=0))


def test_a_streamer_gets_the_input_and_then_the_new_tokens(gpt2: Build, readable: Build) -> None:
    stream, model = Stream(), readable(gpt2()).eval()
    ids = torch.tensor([[1, 9, 8]])
    options = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), streamer=stream, **options)
    assert stream.put_ids[0] == [1, 9, 8]
    assert [i for put in stream.put_ids for i in put] == out[0].tolist()
    assert stream.ended


def test_allowed_tokens_are_asked_for_the_text_alone(gpt2: Build, readable: Build) -> None:
    asked: list[tuple[int, list[int]]] = []

    def allowed(row: int, ids: torch.Tensor) -> list[int]:
        asked.append((row, ids.tolist()))
        return [20 + row]

    model = readable(gpt2()).eval()
    ids = torch.tensor([[1, 9, 8], [0, 1, 7]])
    options = {"max_new_tokens": 2, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    mask = torch.tensor([[1, 1, 1], [0, 1, 1]])
    out = model.generate(input_ids=ids, attention_mask=mask, prefix_allowed_tokens_fn=allowed, **options)
    assert out[:, 3:].tolist() == [[20, 20], [21, 21]]
    assert asked == [(0, [1, 9, 8]), (1, [0, 1, 7]), (0, [1, 9, 8, 20]), (1, [0, 1, 7, 21])]


def test_penalties_still_see_the_prompt(gpt2: Build, readable: Build) -> None:
    model = readable(gpt2()).eval()
    ids = torch.tensor([[1, 9, 8]])
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    out = model.generate(input_ids=ids, repetition_penalty=1e6, logits_processor=[Seen()], **options)
    assert not set(out[0, 3:].tolist()) & {*model.prompt_token_ids(), 1, 9, 8}
