"""Which way a causal LM's training step is run: what the model can have, tried once, and which of it is faster.

Three ways have the same loss and gradient. *One pass*: the prompt once per batch. *Rows*: the prompt in every row, the
head only at the labels, no attention mask. *Plain*: what stock PEFT does. A way that cannot be used is said, once.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from peft_interp.inference.eval_mode import eval_mode
from peft_interp.inference.full_attention import sees_whole_text
from peft_interp.inference.head import head_is_linear, tapped_head
from peft_interp.inference.models import input_embeddings
from peft_interp.inference.padding_habits import first_position
from peft_interp.text.placement import IGNORED
from peft_interp.tuner.last_layer import FeedForward, last_feed_forward
from peft_interp.tuner.layout import positions
from peft_interp.tuner.training_step import ONE_PASS, ROWS, StepMemory, Way, start_step

logger = logging.getLogger(__name__)

# On an accelerator a step takes as long as Python needs to launch it, unless each launch brings enough arithmetic; one
# pass saves arithmetic and launches more. Operations per layer and step from which it is to win: on one H100 a layer
# of Llama took 4.5 ms to launch, in which it does some 2e12 operations in half precision; one of GPT-2 took 2 ms, some
# 6e10 operations in fp32. An estimate from stock's steps: one pass itself was not measured on a GPU (docs/speed.md).
_ENOUGH_OPERATIONS = {2: 2e12, 4: 6e10}  # by bytes of a weight
_EXACTNESS = {2: 0.1, 4: 2e-3}  # relative error of a state that is rounding, not another computation
_PROMPT, _LENGTHS = 3, (4, 3)  # of the trial


@dataclass(frozen=True)
class Abilities:
    """Why a model cannot have a way of running a step; None where it can.

    Attributes:
        rows: reason against "rows", and so against "one pass".
        packed: reason against attention of ours.
        plain_head: as in `Way`.
        feed_forward: as in `Way`.
    """

    rows: str | None
    packed: str | None
    plain_head: bool = False
    feed_forward: FeedForward | None = None


@dataclass
class StepChooser:
    """What one model can have, and what was said about it.

    Attributes:
        memory: what its steps remember.
    """

    memory: StepMemory = field(default_factory=StepMemory)
    _known: dict[tuple[Any, ...], Abilities] = field(default_factory=dict)
    _recomputing: list[nn.Module] | None = None
    _said: set[str] = field(default_factory=set)

    def choose(self, model: PreTrainedModel, wanted: bool | str, prompt: int, shape: Sequence[int]) -> Way | None:
        """The faster way that a model can have.

        Args:
            model: causal LM.
            wanted: `share_prefix`: "auto", or True for one pass wherever it is possible.
            prompt: tokens of the prompt.
            shape: (batch, length) of the text.

        Returns:
            The way; None for the plain pass.
        """
        abilities = self._abilities(model)
        if abilities.rows is not None:
            self.fall_back("the plain pass", abilities.rows)
            return None
        own = abilities.packed is None
        if shape[0] > 1 and (wanted is True or one_pass_is_faster(model, prompt, shape)):
            if own:
                return Way(ONE_PASS, own, abilities.plain_head, abilities.feed_forward)
            self.fall_back("a copy of the prompt in every row", str(abilities.packed))
        return Way(ROWS, own, abilities.plain_head, abilities.feed_forward)

    def fall_back(self, way: str, reason: str) -> None:
        """Say, once, that steps are run in a slower way."""
        if reason not in self._said:
            self._said.add(reason)
            logger.warning("Training steps run with %s, which is slower and has the same result: %s.", way, reason)

    def _abilities(self, model: PreTrainedModel) -> Abilities:
        if self._recomputing is None:
            self._recomputing = [module for module in model.modules() if hasattr(module, "gradient_checkpointing")]
        recomputes = any(module.gradient_checkpointing for module in self._recomputing)
        key = (id(model), recomputes, model.config.get_text_config()._attn_implementation, model.dtype, model.device)
        if key not in self._known:
            self._known[key] = torch.compiler.disable(_tried)(model, recomputes)
        return self._known[key]


def one_pass_is_faster(model: PreTrainedModel, prompt: int, shape: Sequence[int]) -> bool:
    """Whether the arithmetic that one pass saves is more than what its launches cost: always so on a CPU."""
    if model.device.type == "cpu":
        return True
    config = model.config.get_text_config()
    weights = 12 * config.hidden_size**2  # of a layer: attention 4, feed-forward 8
    tokens = shape[0] * (prompt + shape[1])
    return bool(4 * weights * tokens >= _ENOUGH_OPERATIONS.get(model.dtype.itemsize, 6e10))


def _tried(model: PreTrainedModel, recomputes: bool) -> Abilities:
    """What reading the model allows and running it confirms."""
    rows = _against_rows(model)
    if rows is not None:
        return Abilities(rows, rows)
    plain_head = model.base_model is not model and _logits_are_the_heads(model)
    packed = "gradient checkpointing is on" if recomputes else _against_packing(model)
    packed = packed or _differs(model, Way(ONE_PASS, True, plain_head))
    rows = _differs(model, Way(ROWS, packed is None, plain_head))
    feed_forward = None if rows or recomputes else last_feed_forward(model)  # what is recomputed knows no hooks
    if feed_forward is not None and _differs(model, Way(ROWS, packed is None, plain_head, feed_forward)):
        feed_forward = None
    return Abilities(rows, packed or rows, plain_head, feed_forward)


def _logits_are_the_heads(model: PreTrainedModel) -> bool:
    """Nothing between the body and the head (RemBert has a layer there), no scaling or soft cap after it (Gemma 2)."""
    ids = torch.arange(1, 4, device=input_embeddings(model).weight.device)
    try:
        with eval_mode(model):
            with tapped_head(model) as tap:
                model(input_ids=ids.unsqueeze(0), use_cache=False)
            body = model.base_model(input_ids=ids.unsqueeze(0), use_cache=False).last_hidden_state
            return tap.states is not None and torch.equal(tap.states, body) and head_is_linear(model, ids)
    except Exception:  # a head or a model of unknown make
        return False


def _against_rows(model: PreTrainedModel) -> str | None:
    """What rules out a head that sees less and rows without a mask, in words; None where nothing is known."""
    name = type(model).__name__
    if getattr(model, "loss_type", None) not in ("ForCausalLM", None) or model.config.is_encoder_decoder:
        return f"{name} is not trained with the stock causal loss"
    if model.get_output_embeddings() is None:
        return f"{name} has no language-model head of its own"
    if first_position(model):
        return f"{name} counts positions from {first_position(model)}"
    if getattr(model.config.get_text_config(), "output_router_logits", False):
        return "the experts' router has a loss of its own (`output_router_logits`)"
    if "inputs_embeds" not in inspect.signature(model.forward).parameters:
        return f"{name} takes no input embeddings"
    if len({str(place) for place in (getattr(model, "hf_device_map", None) or {}).values()}) > 1:
        return "the model is spread over several devices"
    return None


def _against_packing(model: PreTrainedModel) -> str | None:
    """What rules out attention of ours, in words; None where nothing is known.

    It needs attention that comes from `transformers`' interface and sees the whole text in all layers, and positions
    that are given from outside.
    """
    name, attention = type(model).__name__, model.config.get_text_config()._attn_implementation
    if not getattr(model, "_supports_attention_backend", False):
        return f"{name} does not take its attention from transformers' interface"
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return f"{name} takes no position ids"
    if attention not in ("sdpa", "eager", "flash_attention_2", "flash_attention_3"):
        return f"the attention is {attention!r}"
    if not sees_whole_text(model):
        return "some layers do not see the whole text (sliding window, recurrent state)"
    return None


def _differs(model: PreTrainedModel, way: Way) -> str | None:
    """Try a way on two short rows without gradient; what was wrong, in words, or None."""
    try:
        with eval_mode(model):
            inputs = _trial(model)
            states, loss = _stock(model, inputs)
            found, own_loss = _own(model, way, inputs)
    except Exception as error:  # whatever unknown code may raise: the plain pass does not need it
        return f"{type(model).__name__} refuses it ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    exactness = _EXACTNESS.get(states.dtype.itemsize, 2e-3)
    states, found = (x.float()[inputs["mask"].bool()] for x in (states, found))
    apart = float((found - states).norm(dim=-1).max() / states.norm(dim=-1).mean())
    if apart <= exactness and abs(loss - own_loss) <= exactness * max(1.0, abs(loss)):
        return None
    return f"{type(model).__name__} gives another result with it (states differ by {apart:.1g})"


def _trial(model: PreTrainedModel) -> dict[str, Tensor]:
    """Two rows of unequal length after one prompt."""
    embed = input_embeddings(model)
    ids = torch.arange(1, 1 + _PROMPT + sum(_LENGTHS), device=embed.weight.device) * 7 % embed.weight.shape[0]
    prompt, *rows = ids.split([_PROMPT, *_LENGTHS])
    text = nn.utils.rnn.pad_sequence(rows, batch_first=True)  # (2, 4)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    labels = text.masked_fill(mask == 0, IGNORED)
    return {"prompt": embed.forward(prompt), "ids": text, "mask": mask, "labels": labels}


def _stock(model: PreTrainedModel, inputs: dict[str, Tensor]) -> tuple[Tensor, float]:
    """(rows, length, dim) the state that predicts each token of text, and the loss."""
    ids, batch = inputs["ids"], len(inputs["ids"])
    ones = ids.new_ones(batch, _PROMPT)
    mask = torch.cat((ones, inputs["mask"]), dim=1)
    places = {"position_ids": positions(mask)} if "position_ids" in inspect.signature(model.forward).parameters else {}
    embeds = model.get_input_embeddings().forward(ids)
    with tapped_head(model) as tap:
        output = model(
            inputs_embeds=torch.cat((inputs["prompt"].expand(batch, -1, -1), embeds), dim=1),
            attention_mask=mask,
            labels=torch.cat((IGNORED * ones, inputs["labels"]), dim=1),
            use_cache=False,
            **places,
        )
    assert tap.states is not None
    return tap.states[:, _PROMPT - 1 : -1], float(output.loss)


def _own(model: PreTrainedModel, way: Way, inputs: dict[str, Tensor]) -> tuple[Tensor, float]:
    """As `_stock`, in one of our ways."""
    step = start_step(
        model, StepMemory(), way, inputs["prompt"], None, inputs["ids"], None, inputs["mask"], inputs["labels"]
    )
    assert step is not None
    return step.text_hidden.unflatten(0, inputs["ids"].shape), float(step.loss)
