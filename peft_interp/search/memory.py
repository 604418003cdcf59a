"""How much the search's own passes may take: what fits in memory, so that nothing is cut where all of it fits.

Scoring cuts its work into the blocks that are fastest. What a search draws must not depend on that: how rows are put
together changes the last digits of what a model says of them.
"""

from __future__ import annotations

from typing import Any

from peft_interp.batch_memory import Batches, fitting_tokens, token_bytes


def reading_batches(model: Any) -> Batches:
    """For passes without gradient: a quarter of the memory that is free now."""
    return Batches(_tokens(model, token_bytes(model)))


def gradient_batches(model: Any) -> Batches:
    """For passes with a gradient, which keep the activations of every layer: a quarter of the free memory."""
    return Batches(_tokens(model, token_bytes(model) * model.config.get_text_config().num_hidden_layers))


def drawing_batches() -> Batches:
    """For passes that draw: what is drawn depends on the block, so that only running out of memory makes it smaller."""
    return Batches()


def _tokens(model: Any, size: int) -> int:
    return fitting_tokens(model.get_input_embeddings().weight.device, size)
