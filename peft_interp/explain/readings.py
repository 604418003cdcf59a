"""What the model itself says of a prompt's vectors: they are put into a readable text, and the model goes on.

Patchscopes (arXiv 2401.06102) patch hidden states of one text into another; InSPEcT (arXiv 2410.11660) reads soft
prompts so, layer by layer. Patched at the word embeddings, the vectors themselves stand in the sentence.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from peft_interp.inference.models import input_embeddings, layer_lists
from peft_interp.search.language_moves import continue_from
from peft_interp.text.tokenization import decode_after, encode, encode_after, leading_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

VECTORS = "{vectors}"
DESCRIBING = (  # after InSPEcT: descriptions of other things first
    "Translate into French: a task about languages. Count the words: a task about numbers. {vectors}:",
    "The task of this text is described in a few words. Text: {vectors}\nDescription:",
)
ASKING = (
    "{vectors}\nIn other words, this says:",
    'The instruction "{vectors}" means the same as "',
    "Repeat this text: {vectors}\nText:",
)
_MOST_LAYERS = 4  # whose states are read
_TEMPERATURE = 0.7


def model_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The model's layers in order.

    Raises:
        ValueError: a model without one list of them.
    """
    if found := layer_lists(model):
        return found[0]
    count = model.config.get_text_config().num_hidden_layers
    raise ValueError(f"{type(model).__name__} has no list of {count} layers; leave out what reads its hidden states.")


def read_layers(count: int) -> list[int]:
    """The layers that are read of `count`: evenly spread, the first block's input left out."""
    if count < 2:
        return []
    size = min(_MOST_LAYERS, count - 1)
    return sorted({round(1 + i * (count - 2) / max(1, size - 1)) for i in range(size)})


@torch.no_grad()
def vector_states(model: PreTrainedModel, vectors: Tensor) -> tuple[Tensor, ...]:
    """For each block (length, dim) what enters it where the vectors stand alone."""
    output = model(inputs_embeds=vectors.to(model.dtype).unsqueeze(0), output_hidden_states=True, use_cache=False)
    return tuple(state[0] for state in output.hidden_states[:-1])


@contextmanager
def patched(module: nn.Module, places: slice, states: Tensor, entering: bool) -> Iterator[None]:
    """While open, `states` stand at `places` of what enters a block, or of what the word embeddings give.

    Args:
        module: a block, or the word embeddings.
        places: of the sequence; passes too short to hold them (generation, token by token) are left alone.
        states: (length, dim).
        entering: patch the block's input; else the module's output.
    """
    thread = threading.get_ident()

    def put(hidden: Tensor) -> Tensor:
        if threading.get_ident() != thread or hidden.shape[1] < places.stop:
            return hidden
        changed = hidden.clone()
        changed[:, places] = states.to(hidden.device, hidden.dtype)
        return changed

    def before(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        if args:
            return (put(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": put(kwargs["hidden_states"])}

    def after(_: nn.Module, args: Any, output: Tensor) -> Tensor:
        return put(output)

    handle = (
        module.register_forward_pre_hook(before, with_kwargs=True) if entering else module.register_forward_hook(after)
    )
    try:
        yield
    finally:
        handle.remove()


def readings(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    frame: str,
    vectors: Tensor,
    block: int | None,
    most: int,
    forbidden: Sequence[int],
    ends: Sequence[int],
    count: int,
    seed: int,
) -> list[str]:
    """What the model says after a frame in which the vectors, or the states they leave in a layer, stand.

    Args:
        model: the base model.
        tokenizer: its tokenizer.
        frame: a text with "{vectors}" once.
        vectors: (length, dim) the vectors, or what enters `block` for them.
        block: number of the layer whose input is patched; None for the word embeddings.
        most: new tokens at most.
        forbidden: ids that are never chosen.
        ends: ids that end a reading.
        count: readings that are drawn.
        seed: of the draw.

    Returns:
        The texts that are not empty, in one line each.
    """
    front, back = frame.split(VECTORS)
    start = [*leading_ids(tokenizer), *encode(tokenizer, front.rstrip(" "))]
    filler = encode_after(tokenizer, " this")[0]
    ids = [*start, *[filler] * len(vectors), *encode_after(tokenizer, back)]
    module = input_embeddings(model) if block is None else model_blocks(model)[block]
    with patched(module, slice(len(start), len(start) + len(vectors)), vectors, entering=block is not None):
        drawn = continue_from(model, [ids] * count, most, forbidden, ends, seed, temperature=_TEMPERATURE)
    texts = (decode_after(tokenizer, new).strip().split("\n")[0].strip(' "') for new in drawn)
    return [text for text in dict.fromkeys(texts) if text]
