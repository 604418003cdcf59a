"""`InterpPromptEmbedding`: latent vectors -> token ids -> the vocabulary's exact rows, as a PEFT prompt encoder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from peft.tuners.tuners_utils import BasePromptEncoder
from torch import Tensor, nn

from peft_interp.inference.eval_mode import lasting_tensors, update_count
from peft_interp.inference.model_lock import locked
from peft_interp.text.token_filter import table_fingerprint
from peft_interp.text.tokenization import check_in_vocabulary, leading_token_ids
from peft_interp.tuner.config import InterpPromptConfig
from peft_interp.tuner.effective_prompt import EffectivePrompt
from peft_interp.tuner.initialization import initial_ids
from peft_interp.tuner.perplexity import MOST_WEIGHT, controlled_weight
from peft_interp.tuner.projection import check_finite, straight_through
from peft_interp.tuner.readback import Readback, on_host, same_on_host
from peft_interp.tuner.saved_adapter import check_tensors, check_vectors, digest_of
from peft_interp.tuner.saved_modules import check_modules
from peft_interp.tuner.stalled_search import StallWatch, after_first_step, stop_watching
from peft_interp.tuner.term_gradient import TermWatch
from peft_interp.tuner.token_table import TokenTable

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel


def encoder_of(model: PeftModel, adapter_name: str) -> InterpPromptEmbedding:
    """The module that holds the prompt of an adapter that is known to be ours."""
    return cast(InterpPromptEmbedding, model.prompt_encoder[adapter_name])


@dataclass(frozen=True)
class Prompt:
    """A prompt as it enters the model.

    Attributes:
        vectors: (prompt, dim) what stands among the input embeddings; gradient to the latent.
        rows: (prompt, dim) the same tokens as rows of the table, which differ from `vectors` where the embedding
            module scales its rows (Gemma); gradient to the latent. The latent itself when nothing is projected.
        ids: (prompt,) the nearest tokens.
        latent: (prompt, dim) what was projected, in the table's units; gradient to the parameter.
    """

    vectors: Tensor
    rows: Tensor
    ids: Tensor
    latent: Tensor


class InterpPromptEmbedding(BasePromptEncoder):
    """Prompt encoder that PEFT builds for `InterpPromptConfig`.

    Its one parameter is `latent` (prompt, dim), fp32, in `unit`s of the table's coordinates, so that a step of the
    optimizer is as long on every model, measured against what there is to travel. Buffers, saved with it: `ids`,
    `best_ids` with `best_score` (-inf until a score is recorded), `step`, the optimizer steps seen, and `weight`, the
    perplexity term's full weight now. The table belongs to the base model and is neither registered nor copied here.

    Args:
        config: completed in place: `token_dim`, `num_virtual_tokens`, `leading_token_ids`.
        word_embeddings: the base model's embedding module.

    Raises:
        ValueError: a filter that leaves no token, an initial text that does not fit, a missing tokenizer.
    """

    def __init__(self, config: InterpPromptConfig, word_embeddings: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.tokens = TokenTable(word_embeddings, config)
        self.same_table = True  # the base model's table is the one that the prompt was made for; set by the model
        self.placed_by_ours = False  # set by our models, which put the prompt after BOS and padding
        self.changed_share = float("nan")
        self.statistics: dict[str, Tensor] = {}  # of the last training step, filled by the model
        self.gradient_norm_wanted = False  # of the next training step
        self._projected: Tensor | None = None  # the latent that `ids` belongs to
        self._news: Readback | None = None  # of the last projection
        self._scores: Readback | None = None  # of the last training step
        self._last_nll: float | None = None
        self._counted = 0  # steps before the last projection
        self._known: dict[str, tuple[tuple[int, int], float]] = {}  # what the host knows of buffers
        self._first_ids: Tensor | None = None
        self._stalled = StallWatch(config.stuck_patience)
        self.terms = TermWatch()
        self._original: list[InterpPromptEmbedding] = []  # in a copy of `nn.DataParallel`: the one copied
        self._first_step_watched = self.first_step_seen = False
        self._size = self.tokens.size
        latent = self._start()
        self.latent = nn.Parameter(latent, requires_grad=not config.inference_mode)
        length = latent.shape[0]
        self.register_buffer("ids", torch.zeros(length, dtype=torch.long))
        self.register_buffer("best_ids", torch.zeros(length, dtype=torch.long))
        self.register_buffer("best_score", torch.tensor(-math.inf, dtype=torch.float64))
        self.register_buffer("step", torch.tensor(0, dtype=torch.long))
        self.register_buffer("weight", torch.tensor(config.first_perplexity_weight, dtype=torch.float64))
        self.embedding = EffectivePrompt(self)

    ids: Tensor
    best_ids: Tensor
    best_score: Tensor
    step: Tensor
    weight: Tensor

    @property
    def full_weight(self) -> float | None:
        """What the perplexity term's schedule ends at: the controlled weight, or None for the config's own."""
        return None if self.config.target_perplexity is None else self._number("weight") or None

    @property
    def steps(self) -> int:
        """Optimizer steps seen; read from the device only where something else than a step has changed them."""
        return int(self._number("step"))

    @property
    def table(self) -> Tensor:
        """The base model's embedding matrix, (vocabulary, dim)."""
        return self.tokens.weight

    def _start(self) -> Tensor:
        """Complete the config and make the first latent."""
        config, tokens = self.config, self.tokens
        config.token_dim = tokens.weight.shape[1]  # PEFT guesses hidden_size, wrong where the embedding is narrower
        if config.inference_mode:  # values come from the checkpoint
            return torch.zeros(config.num_virtual_tokens or 0, config.token_dim)
        if config.leading_token_ids is None and tokens.tokenizer is not None:
            config.leading_token_ids = leading_token_ids(tokens.tokenizer)
        if config.placement.before_answer and config.mask_token_id is None and tokens.tokenizer is not None:
            config.mask_token_id = tokens.tokenizer.mask_token_id
        if config.projects:  # a soft prompt's rates are those of stock prompt tuning
            tokens.unit = tokens.measured_unit()
        ids = initial_ids(config, tokens.allowed, tokens.tokenizer)
        if ids is None:
            return torch.randn(config.num_virtual_tokens or 0, config.token_dim) / self.unit
        return self._latent_of(ids)

    def _latent_of(self, ids: Tensor) -> Tensor:
        """Where the latent of these tokens is: at their rows, or for a soft prompt at what enters the model."""
        place = (self.tokens.rows(ids) if self.config.projects else self.tokens.vectors(ids)).float()
        return place / self.unit if self.unit != 1.0 else place.clone()

    @property
    def unit(self) -> float:
        """What one unit of the latent is in the table's."""
        return self.tokens.unit

    @property
    def place(self) -> Tensor:
        """(prompt, dim) where the latent is among the rows of the table, in its units; with gradient."""
        return self.latent * self.unit if self.unit != 1.0 else self.latent

    def forward(self, indices: Tensor) -> Tensor:
        """The effective prompt for PEFT: `indices` (batch, prompt) -> (batch, prompt, dim)."""
        return self.prompt().vectors[indices.to(self.latent.device)]

    def prompt(self) -> Prompt:
        """Project the latent; in training, also count steps and changed tokens.

        Raises:
            FloatingPointError: the latent, or the loss of the step before, is not finite. Nothing waits for a GPU here:
                a latent on one is looked at in `settle`.
        """
        ids = self._project()
        latent: Tensor = self.latent
        watched = self.training and latent.requires_grad and torch.is_grad_enabled()
        if watched and not torch.compiler.is_compiling():  # a graph has the returned loss alone
            latent = self.terms.vectors(latent) if self.config.loss_terms else latent
            self._watch_first_step()
        return self.prompt_at(latent * self.unit if self.unit != 1.0 else latent, ids)

    def prompt_at(self, place: Tensor, ids: Tensor) -> Prompt:
        """The prompt of these `ids` (prompt,), with gradient to `place` (prompt, dim) in the table's units."""
        if not self.config.projects:
            return Prompt(vectors=place, rows=place, ids=ids, latent=place)
        vectors = straight_through(place, self.tokens.vectors(ids))
        rows = straight_through(place, self.tokens.rows(ids)) if self.tokens.scales else vectors
        return Prompt(vectors=vectors, rows=rows, ids=ids, latent=place)

    def digest(self) -> str:
        """Recognises the prompt that it holds now."""
        prompt = self.prompt()
        return digest_of(prompt.ids.tolist(), None if self.config.projects else prompt.vectors)

    def _watch_first_step(self) -> None:
        if self._original:
            self._original[0]._watch_first_step()
        elif self.first_step_seen:
            stop_watching(self)
        elif not self._first_step_watched and self.config.projects:
            self._first_step_watched = True
            torch.compiler.disable(after_first_step)(self)

    def saw_first_step(self, rate: float, largest: float) -> None:
        """Warn if steps like the first, at the `largest` learning rate, would not change a token in time."""
        if self._projected is not None:
            before = self._projected.to(self.latent)
            step = (self.latent.detach() - before) * (self.unit * largest / rate)
            self._stalled.first_step(self.tokens.least_steps(before * self.unit, step, self.ids), largest)

    def _replicate_for_data_parallel(self) -> InterpPromptEmbedding:
        """`nn.DataParallel`'s copy for one device and one pass: it reads what this one, which stays, has found out."""
        if self._projected is None or self.training:
            self._project()
        self.settle()
        copy: InterpPromptEmbedding = super()._replicate_for_data_parallel()
        copy._original = [self]
        return copy

    @locked
    @lasting_tensors()
    def _project(self) -> Tensor:
        if self._original:
            return self._original[0].ids.to(self.latent.device)
        self.settle()
        latent = self.latent.detach()
        before = None if self._projected is None else self._projected.to(latent)
        if self._size != self.tokens.size:
            self._table_changed()
            before = None
        if before is not None and same_on_host(before, latent):
            if before is not self._projected:  # in another precision or place: the ids stay what they were
                self._projected = latent.clone()
            return self.ids.clone()
        ids = self.tokens.nearest(self.place.detach())
        numbers = [torch.linalg.vector_norm(latent, dtype=torch.float32)]
        if before is not None:  # a latent that has not moved keeps its ids: those of a checkpoint are what was trained
            numbers.append(latent.ne(before).sum(dtype=torch.float32))
            moved = numbers[-1] > 0
            ids = torch.where(moved, ids, self.ids)
            numbers.append(ids.ne(self.ids).sum(dtype=torch.float32))
        self._news = Readback(torch.stack(numbers))
        if self._news.immediate:
            check_finite(math.isfinite(self._news.read()[0]))
        if before is not None and self.latent.requires_grad:  # also when an evaluation sees it first
            self._counted = self.steps
            self.step += moved
        self.ids.copy_(ids)
        self._first_ids = ids.clone() if self._first_ids is None else self._first_ids
        self._projected = latent.clone()
        if self._news.immediate:
            self.settle()
        return ids

    def _table_changed(self) -> None:
        """The embeddings were resized: tokens that are gone can be neither the prompt's nor the best one's."""
        self._size = self.tokens.size
        if bool((self.best_ids >= self._size).any()):
            self.best_ids.zero_()
            self.best_score.fill_(math.nan)
        self.config.table_fingerprint = table_fingerprint(self.table)

    @torch.no_grad()
    def settle(self) -> None:
        """Note what the device has found out about the last step's loss and about the last projection.

        Raises:
            FloatingPointError: the loss or the latent is not finite. After such a loss the latent is put back to where
                that step found it.
        """
        if self._original:
            return
        scores, self._scores = self._scores, None
        if scores is not None:
            self._note_scores(*scores.read())
        news, self._news = self._news, None
        if news is None:
            return
        norm, *counted = news.read()
        check_finite(math.isfinite(norm))
        if counted and self.latent.requires_grad:
            moved = counted[0] > 0
            self._note("step", self._counted + moved)
            if moved:
                self._count_step(changed_share=counted[1] / len(self.ids))

    def watch(self, loss: Tensor, nll: Tensor | None) -> None:
        """Look at a training step's loss, and at the prompt's NLL in it: now on a CPU, in the next `settle` on a GPU.

        Raises:
            FloatingPointError: the loss, on the CPU, is not finite.
        """
        if self._original:
            self._original[0].watch(loss, nll)
            return
        numbers = [loss] if nll is None else [loss, nll.to(loss.device)]
        self._scores = Readback(torch.stack([number.detach().float() for number in numbers]))
        if self._scores.immediate:
            self.settle()

    def _note_scores(self, loss: float, nll: float | None = None) -> None:
        self._last_nll = nll
        if math.isfinite(loss):
            return
        if self._projected is not None:
            self.latent.copy_(self._projected)
        raise FloatingPointError(
            f"the training loss is {loss} at step {self.steps}. The prompt is still as it was: save it if you like. "
            "Usual causes: a batch whose labels are all -100, inputs without any token, fp16 overflow (use bf16), or a "
            "learning rate that is too high."
        )

    def changed_since_start(self) -> float:
        """Share of tokens that are not those of the first projection in this process, 0 to 1; NaN where unknown."""
        first = self._first_ids
        if first is None or not self.config.projects or first.shape != self.ids.shape:
            return math.nan
        return float(first.ne(self.ids.to(first.device)).float().mean())

    def _count_step(self, changed_share: float) -> None:
        self.changed_share = changed_share
        self.terms.new_step(self.config.loss_terms)
        target, nll, steps = self.config.target_perplexity, self._last_nll, self.steps
        begun = steps > self.config.perplexity_start_step + self.config.perplexity_warmup_steps
        if target is not None and nll is not None and begun:
            most = 1.0 if self.config.perplexity_combination == "convex" else MOST_WEIGHT
            weight = self.full_weight or self.config.first_perplexity_weight
            self.weight.fill_(controlled_weight(weight, nll, target, most))
            self._note("weight", controlled_weight(weight, nll, target, most))
        if self.config.projects:
            self._stalled.see(self.changed_share > 0, steps, beside=list(self.config.modules_to_save or ()))

    def _note(self, name: str, value: float) -> None:
        buffer = getattr(self, name)
        self._known[name] = ((buffer.data_ptr(), update_count(buffer)), value)

    def _number(self, name: str) -> float:
        """Value of a scalar buffer, read from the device only where it was changed from outside."""
        if self._original:
            return self._original[0]._number(name)
        buffer = getattr(self, name)
        version, value = self._known.get(name, (None, 0.0))
        if buffer.is_inference() or version != (buffer.data_ptr(), update_count(buffer)):
            value = on_host(buffer)
            self._note(name, value)
        return value

    @property
    def best(self) -> float | None:
        """The best prompt's score, or None before the first."""
        score = float(self.best_score)
        return score if score > -math.inf else None  # NaN is what earlier versions saved

    def forget_best(self) -> None:
        """Let the next score count as the first."""
        self.best_score.fill_(-math.inf)

    def keep_best(self, score: float, greater_is_better: bool = True) -> bool:
        """Remember the current ids if `score` is at least as good as the best so far (the latest tie wins).

        Returns:
            Whether the current prompt is now the best.
        """
        best = self.best
        better = best is None or (score >= best if greater_is_better else score <= best)
        if better:
            self.best_ids.copy_(self._project())
            self.settle()
            self.best_score.fill_(score)
        return better

    @lasting_tensors()
    def record_best(self, ids: Tensor, score: float) -> None:
        """Remember these ids as the best, whatever was remembered before.

        Raises:
            ValueError: wrong number of ids, or as `check_ids`.
        """
        if ids.shape != self.best_ids.shape:
            raise ValueError(f"expected {len(self.best_ids)} token ids, got {len(ids)}.")
        self.check_ids(ids)
        self.best_ids.copy_(ids)
        self.best_score.fill_(score)

    @lasting_tensors()
    def resize(self, length: int) -> None:
        """Make room for a prompt of another length; `set_ids` must follow. The best prompt so far is forgotten."""
        self.config.num_virtual_tokens = length
        self.latent = nn.Parameter(self.latent.new_zeros(length, self.latent.shape[1]), self.latent.requires_grad)
        self.ids, self.best_ids = self.ids.new_zeros(length), self.best_ids.new_zeros(length)
        self.forget_best()
        self._projected = None

    def check_ids(self, ids: Tensor) -> None:
        """Whether a prompt, of any length, may hold these ids.

        Raises:
            ValueError: no ids, or one that is outside the vocabulary or not allowed.
        """
        if not len(ids):
            raise ValueError("there are no token ids; a prompt has at least one.")
        check_in_vocabulary(ids.tolist(), self.tokens.word_embeddings)
        allowed = self.tokens.allowed.to(ids.device)
        if self.config.projects and not bool(allowed[ids].all()):
            raise ValueError(
                f"token ids {ids[~allowed[ids]].tolist()} are special, unused, or forbidden by "
                f"`allowed_tokens={self.config.allowed_tokens!r}` and the banned words and ids; use others."
            )

    @lasting_tensors()
    def set_ids(self, ids: Tensor) -> None:
        """Move the latent onto these tokens' rows.

        Raises:
            ValueError: wrong number of ids, or as `check_ids`.
        """
        if ids.shape != self.ids.shape:
            raise ValueError(
                f"expected {len(self.ids)} token ids, got shape {tuple(ids.shape)}; `use_prompt(ids, resize=True)` "
                "takes another length."
            )
        self.check_ids(ids)
        self.latent.copy_(self._latent_of(ids))
        self.ids.copy_(ids)
        self._projected = self.latent.detach().clone()

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: PeftModel,
        config: PeftConfig,
        adapter_name: str,
        state_dict: dict[str, Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, Tensor]:
        """PEFT's saving hook: the effective rows that stock PEFT reads, and what exact resume needs."""
        encoder = encoder_of(model, adapter_name)
        vectors = encoder.prompt().vectors
        encoder.settle()  # nothing broken is written
        return {
            "prompt_embeddings": vectors.detach().cpu().clone(),
            "prompt_latent": encoder.latent.detach().cpu().clone(),
            **({} if encoder.unit == 1.0 else {_UNIT: torch.tensor(encoder.unit, dtype=torch.float64)}),
            **{name: getattr(encoder, attribute).cpu().clone() for name, attribute in _SAVED_BUFFERS.items()},
        }

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: PeftModel, config: PeftConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """PEFT's hook before anything is written, so that a bad checkpoint changes nothing; raises as `check_state`."""
        check_modules(model, adapter_name, state_dict)
        encoder_of(model, adapter_name).check_state(state_dict)
        return state_dict

    def _load_adapter_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """PEFT's loading hook; raises as `check_state`."""
        self.check_state(state_dict)
        for name, target in self._saved_tensors().items():
            target.copy_(state_dict.get(name, target))
        self.tokens.unit = float(state_dict.get(_UNIT, 1.0))  # those saved before there were units are in the table's
        # the saved ids are what was trained, not a new projection; of a soft prompt they only tell what is near
        self._projected = self.latent.detach().clone() if self.config.projects else None
        self._first_ids = self.ids.clone()

    def _saved_tensors(self) -> dict[str, Tensor]:
        return {"prompt_latent": self.latent.data} | {k: getattr(self, v) for k, v in _SAVED_BUFFERS.items()}

    def check_state(self, state_dict: dict[str, Tensor]) -> None:
        """Whether saved tensors fit this prompt.

        Raises:
            ValueError: a tensor is missing, is not finite, has the wrong kind or shape, an id is outside the
                vocabulary, or the vectors are not those of the ids.
        """
        for name, target in self._saved_tensors().items():
            if name in state_dict and state_dict[name].shape != target.shape:
                raise ValueError(
                    f"tensor {name!r} has shape {tuple(state_dict[name].shape)}, this prompt needs "
                    f"{tuple(target.shape)}; use the `num_virtual_tokens` and base model of the checkpoint."
                )
        check_tensors(state_dict, len(self.ids), self.config.projects)
        unit = state_dict.get(_UNIT)
        if unit is not None and not (unit.numel() == 1 and math.isfinite(float(unit)) and float(unit) > 0):
            raise ValueError(f"tensor {_UNIT!r} must be one number > 0; the file is damaged, save the adapter again.")
        for name in ("prompt_ids", "best_prompt_ids"):
            ids, remedy = state_dict[name].tolist(), "load the base model it was trained on"
            check_in_vocabulary(ids, self.tokens.word_embeddings, f"checkpoint's {name!r}", remedy)
        if self.config.projects and self.same_table:  # that it is another one is said where the model is made
            check_vectors(state_dict, self.tokens.vectors(state_dict["prompt_ids"].to(self.ids)))


_SAVED_BUFFERS = {
    "prompt_ids": "ids",
    "best_prompt_ids": "best_ids",
    "best_prompt_score": "best_score",
    "prompt_step": "step",
    "prompt_perplexity_weight": "weight",
}
_UNIT = "prompt_latent_unit"
