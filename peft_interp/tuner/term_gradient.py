"""Makes the terms of the training loss count where a trainer makes its loss of logits or of log-probabilities.

The terms are added to the loss that the model returns. TRL's trainers do not use that loss, so no backward pass would
ever come to the terms. Every backward pass that trains the prompt does come to the prompt's vectors, after all that
depends on them: there it is known whether it came to the terms as well, and if not, their gradient is added.

It is added once per optimizer step, at full weight: that is what a term in the loss amounts to, however many batches
are accumulated or forward passes made.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from peft_interp.tuner.loss_terms import LossTerm

Gradient = tuple[Tensor, float]
"""What the terms add to the gradient of the prompt's vectors, (prompt, dim), and the factor of what is there."""


_LOST = (
    "no backward pass has come to the terms of the training loss ({settings}), and their gradient could not be added: "
    "the trainer makes its loss of something else than the model's `loss`, in fp16 or with a model without a language-"
    "model head. The terms are shown and not trained. Use bf16, or add to `model(**inputs).loss` in your own loss."
)


class TermWatch:
    """Knows of each backward pass whether it came to the terms, and what to add where it did not.

    Attributes:
        missed: the last backward pass that trained the prompt was one without the terms, and nothing could be added.
    """

    def __init__(self) -> None:
        self.missed = False
        self._owed: Callable[[], Gradient | None] | None = None
        self._reached = self._added = -1  # numbers of backward passes
        self._done = False  # in this optimizer step
        self._said = False

    def new_step(self, terms: Sequence[LossTerm]) -> None:
        """The optimizer has moved the prompt; warn, once, if the terms had no part in that."""
        self._done = False
        if self.missed and not self._said:
            self._said = True
            warnings.warn(_LOST.format(settings=", ".join(term.setting for term in terms)), stacklevel=2)

    def expect(self, owed: Callable[[], Gradient | None]) -> None:
        """A training pass has begun.

        Args:
            owed: the terms' gradient, asked for only where the backward pass does not come to them; None where it
                cannot be made.
        """
        self._owed = owed

    def vectors(self, latent: Tensor) -> Tensor:
        """`latent` (prompt, dim), such that a backward pass through it is noticed."""
        return _Vectors.apply(latent, self)

    def term(self, value: Tensor) -> Tensor:
        """A term's `value`, such that a backward pass through it is noticed."""
        return _Term.apply(value, self) if value.requires_grad else value

    def note_term(self) -> None:
        """A backward pass has come to a term."""
        self._reached = _backward_pass()

    def completed(self, gradient: Tensor, first: bool) -> Tensor:
        """The gradient of the prompt's vectors with the terms in it.

        Args:
            gradient: (prompt, dim) of what the backward pass has come to.
            first: no gradient was accumulated before, so that this is a new step.
        """
        now = _backward_pass()
        if self._owed is None or self._reached == now:
            self.missed = False
            return gradient
        if self._added == now or (self._done and not first):
            return gradient
        self._added, self._done = now, True
        with torch.enable_grad():
            found = self._owed()
        self.missed = found is None
        if found is None:
            return gradient
        extra, share = found
        return share * gradient + extra.to(gradient)


class _Vectors(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, latent: Tensor, watch: TermWatch) -> Tensor:
        ctx.watch, ctx.latent = watch, latent
        return latent.view_as(latent)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        accumulated = ctx.latent.grad if ctx.latent.is_leaf else None
        return ctx.watch.completed(grads[0], first=accumulated is None), None


class _Term(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, watch: TermWatch) -> Tensor:
        ctx.watch = watch
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        ctx.watch.note_term()
        return grads[0], None


def _backward_pass() -> int:
    """Number of the backward pass that is under way."""
    return int(torch._C._current_graph_task_id())
