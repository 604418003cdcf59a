"""Where a prompt and a text part inside the model: hidden states of the same rows under both, layer by layer.

The "activation pattern analysis" of "Towards Interpretable Soft Prompts" (arXiv 2504.02144). Likeness is told by the
cosine, which compares states one by one, and by linear centred kernel alignment (CKA, arXiv 1905.00414), which compares
how rows lie to each other. Hidden states share large directions, so cosines are high everywhere: read them beside the
cosine to what no prompt leaves.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from peft_interp.explain.readings import model_blocks
from peft_interp.explain.target import common_places, compared, has_vectors
from peft_interp.inference.eval_mode import eval_mode
from peft_interp.inference.model_lock import locked
from peft_interp.metrics.comparison import ComparisonSetup, ModelRunner
from peft_interp.metrics.reading import prompt_config
from peft_interp.metrics.text_rows import PlacedRow
from peft_interp.report.explained import ActivationComparison, LayerLikeness
from peft_interp.text.rows import Row, Rows
from peft_interp.text.tokenization import check_text

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PARTED = 0.9  # cosine at the answer below which a layer's states count as apart
MOST_ROWS = 128
_MOST_TOKENS = 1024  # of the inputs' own tokens that are compared

States = list[Tensor]  # by layer


@locked
def compare_activations(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    text: str,
    adapter_name: str | None = None,
    batch_size: int = 32,
) -> ActivationComparison:
    """How alike the hidden states are that a prompt and a text leave, in every layer.

    Args:
        model: a `PeftModel` with a prompt adapter that has input vectors, for CAUSAL_LM.
        tokenizer: the base model's.
        rows: tokenised examples without a prompt, as for `measure_faithfulness`; at least 8, at most 128 are used.
        text: what is held against the prompt; it is pasted where the prompt stands.
        adapter_name: None for the active one.
        batch_size: rows at a time; it changes no result.

    Returns:
        For each layer cosine and CKA at the position that predicts the answer and at the input's tokens after the
        prompt; 1 everywhere where the text is the prompt.

    Raises:
        ValueError: prefix tuning, whose keys and values leave no states of a prompt; another task; an empty text; too
            few or unusable rows, or rows that the text changes.
    """
    check_text("text", text)
    if not text:
        raise ValueError("`text=''` is empty; give the text that is to be held against the prompt.")
    prompt_config(model, adapter_name)
    if not has_vectors(model, adapter_name):
        raise ValueError(
            "PREFIX_TUNING puts keys and values into the layers and no vectors among the inputs, so there are no "
            "hidden states of a prompt to compare; leave the activation view out (`activations=False`)."
        )
    with eval_mode(model, adapter_name):
        setup = compared(model, tokenizer, rows, None, batch_size)
        return compare_states(setup, setup.rows[:MOST_ROWS], text)


def compare_states(setup: ComparisonSetup, rows: Sequence[Row], text: str) -> ActivationComparison:
    """As `compare_activations`, for rows that are read already."""
    ids = setup.placement.encode_prompt(setup.tokenizer, text)
    every = setup.as_text(rows, text, ids)
    kept = [i for i, row in enumerate(rows) if _comparable(setup, row, every[i])]
    if not kept:
        raise ValueError(f"the text {text!r} melts into every row, so no token of a row is left to compare.")
    rows, placed = [rows[i] for i in kept], [every[i] for i in kept]
    answers, tokens, prompts = _places(setup, rows, len(ids))
    first = _states(setup, setup.prompt, setup.as_prompt(rows), rows, answers, tokens, prompts[0], as_prompt=True)
    second = _states(setup, setup.text, placed, rows, answers, tokens, prompts[1], as_prompt=False)
    bare = setup.as_text(rows, "", [])
    none = _states(setup, setup.text, bare, rows, answers, [[]] * len(rows), [], as_prompt=False)
    layers = tuple(
        LayerLikeness(
            number,
            *(mean_cosine(first[0][number], second[0][number]), linear_cka(first[0][number], second[0][number])),
            *(mean_cosine(first[1][number], second[1][number]), linear_cka(first[1][number], second[1][number])),
            mean_cosine(first[0][number], none[0][number]),
            mean_cosine(first[2][number], second[2][number]) if prompts[0] else None,
        )
        for number in range(len(first[0]))
    )
    parts = next((layer.layer for layer in layers if layer.answer_cosine < PARTED), None)
    return ActivationComparison(text, len(rows), layers, parts, PARTED)


def mean_cosine(first: Tensor, second: Tensor) -> float:
    """Mean cosine of states one by one, both (states, dim); exactly 1 where they are equal, NaN for none."""
    if not len(first):
        return math.nan
    cosine = nn.functional.cosine_similarity(first.double(), second.double(), dim=-1)
    return cosine.masked_fill((first == second).all(-1), 1.0).mean().item()


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear centred kernel alignment: ||X'Y||^2 / (||X'X|| ||Y'Y||) in Frobenius norms, columns centred.

    Args:
        first: (states, dim).
        second: (states, dim).

    Returns:
        0 to 1; exactly 1 for equal states that differ from each other, NaN where one side's are all the same.
    """
    if len(first) < 2:
        return math.nan
    x, y = (side.double() - side.double().mean(0) for side in (first, second))
    if len(x) < x.shape[1]:  # the same figures from the smaller products
        a, b = x @ x.T, y @ y.T
        cross, norms = (a * b).sum(), a.norm() * b.norm()
    else:
        cross, norms = (x.T @ y).square().sum(), (x.T @ x).norm() * (y.T @ y).norm()
    if norms <= _CONSTANT * (1 + float(first.double().square().sum())) ** 2:
        return math.nan
    return 1.0 if torch.equal(first, second) else min(1.0, float(cross / norms))


_CONSTANT = 1e-18


def _comparable(setup: ComparisonSetup, row: Row, placed: PlacedRow) -> bool:
    """Whether the answer and every token of the row are the same ones with the text."""
    answer = common_places(setup, row)
    return bool(answer) and answer[0] in setup.predicted(row, placed) and len(placed.columns) == len(row.ids)


def _places(
    setup: ComparisonSetup, rows: Sequence[Row], length: int
) -> tuple[list[int], list[list[int]], tuple[list[int], list[int]]]:
    """For each row the answer's index and those of tokens after the prompt; the prompt's columns on both sides."""
    answers = [common_places(setup, row)[0] for row in rows]
    # the token right in front of the answer is the answer's own position
    tokens = [list(range(row.start, max(row.start, answer - 1))) for row, answer in zip(rows, answers, strict=True)]
    every = sum(map(len, tokens))
    if every > _MOST_TOKENS:
        step = -(-every // _MOST_TOKENS)
        tokens = [part[::step] for part in tokens]
    own = list(range(setup.length))
    return answers, tokens, (own, own) if length == setup.length else ([], [])


def _states(
    setup: ComparisonSetup,
    runner: ModelRunner,
    placed: Sequence[PlacedRow],
    rows: Sequence[Row],
    answers: Sequence[int],
    tokens: Sequence[Sequence[int]],
    prompt: Sequence[int],
    as_prompt: bool,
) -> tuple[States, States, States]:
    """By layer, rows in order: (rows, dim) at the answer, (tokens, dim) at tokens, (places, dim) of the prompt."""
    found: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = {}
    for batch in setup.batches(placed, [[0]] * len(rows)):
        wanted = [[answers[i]] for i in batch]
        questions = [setup.request(rows[i], placed[i], w, as_prompt) for i, w in zip(batch, wanted, strict=True)]
        with _collected(runner.base) as layers:
            runner.logits(questions)
        for place, i in enumerate(batch):
            row, columns = rows[i], placed[i].columns
            front = len(row.before)
            picked = []
            for hidden in layers:
                here = hidden[place]
                own = here[[front + k for k in prompt]]
                picked.append((here[setup.predicted(row, placed[i])[answers[i]]], here[_at(columns, tokens[i])], own))
            found[i] = picked
    count = len(found[0])
    every = [[found[i][layer] for i in range(len(rows))] for layer in range(count)]
    return (
        [torch.stack([part[0] for part in layer]) for layer in every],
        [torch.cat([part[1] for part in layer]) for layer in every],
        [torch.cat([part[2] for part in layer]) for layer in every],
    )


def _at(columns: dict[int, int], tokens: Sequence[int]) -> list[int]:
    return [columns[j] for j in tokens]


@contextmanager
def _collected(base: PreTrainedModel) -> Iterator[States]:
    """While open, what enters the first block and leaves each is collected: (batch, length, dim) on the CPU."""
    layers: States = []
    thread = threading.get_ident()
    blocks = model_blocks(base)

    def entering(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if threading.get_ident() == thread:
            layers.append((args[0] if args else kwargs["hidden_states"]).detach().float().cpu())

    def leaving(_: nn.Module, args: Any, output: Any) -> None:
        if threading.get_ident() == thread:
            layers.append((output[0] if isinstance(output, tuple) else output).detach().float().cpu())

    handles = [blocks[0].register_forward_pre_hook(entering, with_kwargs=True)]
    handles += [block.register_forward_hook(leaving) for block in blocks]
    try:
        yield layers
    finally:
        for handle in handles:
            handle.remove()
