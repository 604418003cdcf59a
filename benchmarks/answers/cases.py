"""What is measured: where the prompt stands, how long texts are; and the three ways to answer."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from benchmarks.timing import now
from peft_interp import embedded
from peft_interp.text.placement import END, PLACEMENTS, START
from peft_interp.text.rows import Row

PROMPTS = (
    "Is this film review positive or negative?",
    "Movie review:",
    "Tell me if the audience enjoyed this film.",
    "Say how the reviewer felt.",
    "Opinion on a new release",
    "The river flows through the north.",
    "Write one sentence about the text.",
    "Judge it.",
)


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        name: in results.
        words: in tables.
        position: where the prompt stands.
        reviews: of the embedded test data that make a row's text.
        goal: the least times that are asked for; None where nothing was.
    """

    name: str
    words: str
    position: str
    reviews: int = 1
    goal: float | None = None


CASES = (
    Case("start", "prompt, review", START.name, goal=4.0),
    Case("end", "review, prompt", END.name, goal=4.0),
    Case("end_long", "six reviews, prompt", END.name, reviews=6),
)


def seconds(model: Any) -> float:
    """Processor time of all threads on a CPU, in which other work does not count; elsewhere the wall clock's."""
    return time.process_time() if model.device.type == "cpu" else now(str(model.device))


def make_rows(tokenizer: Any, case: Case, count: int) -> list[Row]:
    """Reviews of the embedded test data, unlabelled."""
    placement, found = PLACEMENTS[case.position], []
    sentences = [row["sentence"] for row in embedded.load_data("sentiment")["test"]]
    for start in range(count):
        text = " ".join(sentences[(start + i) % len(sentences)] for i in range(case.reviews))
        ids = tuple(placement.encode_text(tokenizer, f" {text}" if placement.before_text else text))
        labels = (-100,) * len(ids)
        found.append(Row((), ids, labels, placement.index(labels)))
    return found


@torch.no_grad()
def generated(model: Any, inputs: Sequence[Sequence[int]], new: int) -> list[list[int]]:
    """One call of `generate`, the inputs padded in front."""
    width = max(map(len, inputs))
    ids = torch.tensor([[0] * (width - len(i)) + list(i) for i in inputs], device=model.device)
    mask = torch.tensor([[0] * (width - len(i)) + [1] * len(i) for i in inputs], device=model.device)
    found = model.generate(ids, attention_mask=mask, max_new_tokens=new, do_sample=False, pad_token_id=0)
    answers: list[list[int]] = found[:, width:].tolist()
    return answers


@dataclass
class Work:
    """What a model did while it was watched.

    Attributes:
        tokens: columns that ran through its layers, padding included.
        products: seconds in the matrix products of its linear layers.
    """

    tokens: int = 0
    products: float = 0.0
    _begun: list[float] = field(default_factory=list)


@contextmanager
def watched(model: Any) -> Iterator[Work]:
    """Counts tokens and times linear layers while it is open; the times are a CPU's."""
    work, handles = Work(), []

    def counted(_: nn.Module, args: Any) -> None:
        work.tokens += args[0].numel()

    def begin(*_: Any) -> None:
        work._begun.append(time.process_time())

    def end(*_: Any) -> None:
        work.products += time.process_time() - work._begun.pop()

    handles.append(model.get_input_embeddings().register_forward_pre_hook(counted))
    for module in model.modules():
        if isinstance(module, nn.Linear | Conv1D):
            handles += [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
    try:
        yield work
    finally:
        for handle in handles:
            handle.remove()


def work_of(model: Any, way: Callable[[], Any]) -> Work:
    """What one run of a way does."""
    with watched(model) as work:
        way()
    return work
