"""Terms of the training loss beside the task's: one record each, with a pure function on the prompt's tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from peft_interp.records import markdown_table


@dataclass(frozen=True)
class TermInputs:
    """The prompt of a training step.

    Attributes:
        ids: (prompt,) its tokens.
        rows: (prompt, dim) their rows of the embedding table, with gradient to the latent (straight through); the
            latent itself where nothing is projected.
        latent: (prompt, dim) the parameter.
        nll: the prompt's mean NLL in nats per token, a scalar with gradient; see `prompt_nll`.
    """

    ids: Tensor
    rows: Tensor
    latent: Tensor
    nll: Callable[[], Tensor]


@dataclass(frozen=True)
class LossTerm:
    """A term of the training loss: its weight times what its function returns is added to the task's loss.

    Attributes:
        name: in `prompt_statistics`.
        setting: the weight's field of `InterpPromptConfig`; 0 leaves the term out.
        function: a scalar with gradient to `rows` or `latent`.
        weight_help: help text of the field.
        default: of the weight, >= 0.
        needs_nll: `function` calls `nll`, so a causal language model must be at hand.
    """

    name: str
    setting: str
    function: Callable[[TermInputs], Tensor]
    weight_help: str
    default: float = 0.0
    needs_nll: bool = False


def _nll(inputs: TermInputs) -> Tensor:
    return inputs.nll()


PERPLEXITY = LossTerm(
    name="prompt_nll",
    setting="perplexity_weight",
    function=_nll,
    weight_help="Weight of the prompt's NLL (nats per token) in the training loss, >= 0. 0 is plain PEZ; PEZ's "
    "published fluency weight is 0.003 (convex).",
    needs_nll=True,
)
"""The one term with a schedule, a target instead of a weight, and two ways to be joined."""

LOSS_TERMS: tuple[LossTerm, ...] = (PERPLEXITY,)


def term_table() -> str:
    """`LOSS_TERMS` as Markdown."""
    rows = [[f"`{term.name}`", f"`{term.setting}`", term.weight_help] for term in LOSS_TERMS]
    return markdown_table(("in `prompt_statistics`", "weight in `InterpPromptConfig`", "what"), rows)
