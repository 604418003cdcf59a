"""Batches that fit memory: free memory, tokens that one forward pass may take, halving when memory runs out.

Scoring cuts its work into the blocks that are fastest. What a search draws must not depend on that: how rows are put
together changes the last digits of what a model says of them (`drawing_batches`).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch
from accelerate.utils.memory import clear_device_cache
from torch import Tensor

from peft_interp.inference.models import input_embeddings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)
_CGROUP = Path("/sys/fs/cgroup")
# More tokens per pass gain nothing on either: the matrix products are large enough.
_MOST_TOKENS = {"cpu": 4096}
_MOST_TOKENS_ELSEWHERE = 32768
_FEWEST_TOKENS = 64


def available_bytes(device: torch.device) -> int:
    """Memory that is free on a device; on a CPU a container's limit counts."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = psutil.virtual_memory().available
    try:
        limit, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        details = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return min(free, max(limit - used + int(details["inactive_file"]), 0))  # file cache gives way
    except (OSError, ValueError, KeyError):  # no control group, or no limit ("max")
        return free


def token_bytes(model: PreTrainedModel) -> int:
    """Rough peak of one token in a forward pass without gradient: activations of a layer, keys and values of all."""
    config = model.config.get_text_config()
    width = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * width
    return (10 * width + 3 * inner + 2 * config.num_hidden_layers * width) * model.dtype.itemsize


def logits_tokens(model: PreTrainedModel) -> float:
    """How many tokens' memory the logits of one position take, in fp32 and beside two temporary copies."""
    return 12 * model.config.get_text_config().vocab_size / token_bytes(model)


def default_tokens(model: PreTrainedModel, device: torch.device) -> int:
    """Tokens per forward pass for a quarter of the free memory, within what speed asks for."""
    most = _MOST_TOKENS.get(device.type, _MOST_TOKENS_ELSEWHERE)
    return min(most, fitting_tokens(device, token_bytes(model)))


def fitting_tokens(device: torch.device, size: int) -> int:
    """Tokens of `size` bytes that a quarter of the free memory takes; some at least."""
    return max(_FEWEST_TOKENS, available_bytes(device) // 4 // size)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch may help: the GPU's error, or the CPU allocator's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("out of memory", "not enough memory", "DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


class Batches:
    """Cuts a table of work into blocks that fit, and into smaller ones when memory runs out.

    Attributes:
        tokens: most tokens in one forward pass; halved whenever a pass runs out of memory, and remembered.
            Unlimited by default: then only running out of memory makes blocks smaller.
    """

    def __init__(self, tokens: int = sys.maxsize) -> None:
        self.tokens = tokens

    def run(
        self,
        work: Callable[[range, range], None],
        cost: Callable[[range, range], float],
        rows: range,
        columns: range,
    ) -> None:
        """Call `work(rows, columns)` on blocks that together cover the table once.

        Args:
            work: does one block; may run out of memory.
            cost: tokens of a block.
            rows: of the table.
            columns: of the table; cut only where a single row is too much.

        Raises:
            RuntimeError: what the device said, where a single cell does not fit.
        """
        size, divisible = cost(rows, columns), len(rows) * len(columns) > 1
        fits = size <= self.tokens or not divisible
        if fits and self.attempt(lambda: work(rows, columns), size, divisible):
            return
        if len(rows) > 1:
            parts = [(half, columns) for half in halves(rows)]
        else:
            parts = [(rows, half) for half in halves(columns)]
        for part in parts:
            self.run(work, cost, *part)

    def attempt(self, work: Callable[[], None], cost: float, divisible: bool) -> bool:
        """Whether `work` went through. Where memory ran out and the work can be divided, fewer tokens are the limit."""
        try:
            work()
            return True
        except (RuntimeError, MemoryError) as error:
            if not divisible or not is_out_of_memory(error):
                raise
            reason = str(error).split("\n")[0]
        self.tokens = max(1, min(self.tokens, int(cost)) // 2)
        clear_device_cache(garbage_collection=True)
        logger.info("Out of memory (%s); from now on at most %d tokens per forward pass.", reason, self.tokens)
        return False


def moved(numbers: Sequence[int] | Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """A tensor of Python's numbers on a device, without waiting for what the device is doing."""
    return torch.tensor(numbers).to(device, non_blocking=True)  # not pinned, so it is read before this returns


def padded_ids(sequences: Sequence[Sequence[int]], width: int, pad: int, device: torch.device) -> Tensor:
    """(sequences, width) ids, padding after."""
    return moved([[*ids, *[pad] * (width - len(ids))] for ids in sequences], device)


def padded_rows(sequences: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Input ids and attention mask, each (sequences, longest), padding after."""
    width = max(map(len, sequences))
    ones = [[1] * len(ids) for ids in sequences]
    return padded_ids(sequences, width, pad, device), padded_ids(ones, width, 0, device)


def halves(items: range) -> tuple[range, range]:
    """The first and the second half."""
    middle = items.start + (len(items) + 1) // 2
    return range(items.start, middle), range(middle, items.stop)


def reading_batches(model: PreTrainedModel) -> Batches:
    """For passes without gradient: a quarter of the memory that is free now."""
    return Batches(_tokens(model, token_bytes(model)))


def gradient_batches(model: PreTrainedModel) -> Batches:
    """For passes with a gradient, which keep the activations of every layer: a quarter of the free memory."""
    return Batches(_tokens(model, token_bytes(model) * model.config.get_text_config().num_hidden_layers))


def drawing_batches() -> Batches:
    """For passes that draw: what is drawn depends on the block, so that only running out of memory makes it smaller."""
    return Batches()


def _tokens(model: PreTrainedModel, size: int) -> int:
    return fitting_tokens(input_embeddings(model).weight.device, size)
