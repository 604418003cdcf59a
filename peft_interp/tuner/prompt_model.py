"""What all our models have in common: reading the prompt, the perplexity term, statistics, the best prompt so far."""

from __future__ import annotations

import copy
import inspect
import math
import os
import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from torch import Tensor, nn

from peft_interp.embedded import resolve
from peft_interp.inference.full_attention import keeping_activations, recomputes_activations
from peft_interp.inference.max_length import check_prompt_length, check_room, may_lack_room
from peft_interp.inference.model_lock import locked
from peft_interp.inference.named_model import load_named_model
from peft_interp.inference.sharding import check_whole
from peft_interp.text.label_bias import LabelBias
from peft_interp.text.token_filter import same_table, table_fingerprint
from peft_interp.text.tokenization import as_ids, config_token_ids, named_token_ids, survives
from peft_interp.tuner.config import InterpPromptConfig
from peft_interp.tuner.embedding import InterpPromptEmbedding, Prompt
from peft_interp.tuner.fluency import check_scorer, join_losses, scorer_nll, task_model_nll
from peft_interp.tuner.loss_terms import PERPLEXITY, TermInputs
from peft_interp.tuner.model_inputs import Composed, compose_inputs
from peft_interp.tuner.task_types import listed, prompt_task
from peft_interp.tuner.term_gradient import Gradient

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Base = PeftModel
else:
    Base = object


class PromptModelMixin(Base):
    """Stands before a PEFT model class and gives it a readable prompt.

    Adapters of other configs in the same model behave as PEFT makes them.
    """

    if TYPE_CHECKING:
        base_model: PreTrainedModel
        word_embeddings: nn.Module
        prompt_encoder: Any
        prompt_tokens: dict[str, Tensor]

    # -- reading the prompt ---------------------------------------------------------------------------------------

    @locked
    def prompt_token_ids(self, adapter_name: str | None = None) -> list[int]:
        """The prompt's token ids; for an unprojected (soft) prompt, the nearest tokens."""
        return self._encoder(adapter_name).prompt().ids.tolist()

    @locked
    def prompt_text(self, tokenizer: PreTrainedTokenizerBase, adapter_name: str | None = None) -> str:
        """The prompt as text; put it before the input's text, after the BOS token if there is one.

        For `prompt_position="end"`: what to put right after the input's text; it brings its own leading blank.
        Of a soft prompt (`projection_metric="none"`) these are the nearest tokens, which need not act like it.
        """
        placement = self._encoder(adapter_name).config.placement
        return placement.decode_prompt(tokenizer, self.prompt_token_ids(adapter_name))

    @locked
    def prompt_survives(
        self,
        tokenizer: PreTrainedTokenizerBase,
        following_text: str,
        adapter_name: str | None = None,
        preceding_text: str = "",
    ) -> bool:
        """Whether the text is tokenised to the prompt's ids again between `preceding_text` and `following_text`.

        `preceding_text` is for `prompt_position="end"`: `verbalizer.fill(text)`, say.

        Raises:
            ValueError: a soft prompt, which is no text that could survive.
        """
        if not self._encoder(adapter_name).config.projects:
            raise ValueError(
                "`projection_metric='none'` trains vectors that are no text; `prompt_text` gives their nearest tokens, "
                "which need not act like them."
            )
        return survives(tokenizer, self.prompt_token_ids(adapter_name), following_text, preceding_text)

    @locked
    def prompt_statistics(self, adapter_name: str | None = None, clear: bool = False) -> dict[str, float]:
        """State of the search after the last training step.

        Args:
            adapter_name: None for the active one.
            clear: forget what only some steps measure, so that the next call does not return it again.

        Returns:
            `step` (optimizer steps), `changed_share` (share of tokens the last step changed, 0 to 1),
            `changed_since_start` (share of tokens that are not those the prompt began with in this process; 0 after
            training means that something else has learned, a classification head say),
            `perplexity_weight` (the schedule's current value), `prompt_nll` (nats per token, of the prompt before
            that step, with `perplexity_weight` > 0) and `perplexity_gradient_norm` (of the unweighted NLL at the
            latent, where `measure_perplexity_gradient` was called before); the other terms of the loss by name. What is
            not known is missing.
        """
        encoder = self._encoder(adapter_name)
        encoder.prompt()  # sees the last step's latent
        encoder.settle()
        step = encoder.steps
        known = {
            "step": float(step),
            "changed_share": encoder.changed_share,
            "changed_since_start": encoder.changed_since_start(),
            "perplexity_weight": encoder.config.perplexity_weight_at(step, encoder.full_weight),
            **{name: float(value) for name, value in encoder.statistics.items()},
        }
        if clear:
            encoder.statistics.pop("perplexity_gradient_norm", None)
        return {name: value for name, value in known.items() if not math.isnan(value)}

    def measure_perplexity_gradient(self, adapter_name: str | None = None) -> None:
        """Have the next training step measure `perplexity_gradient_norm`, which costs it one more backward pass.

        `PromptCallback` asks for it before a step that Trainer logs. With gradient checkpointing it is not measured.
        """
        self._encoder(adapter_name).gradient_norm_wanted = True

    # -- the best prompt so far -----------------------------------------------------------------------------------

    @locked
    def keep_best_prompt(self, score: float, greater_is_better: bool = True, adapter_name: str | None = None) -> bool:
        """Remember the current prompt if its held-out `score` is at least as good as the best so far.

        Returns:
            Whether it is now the best. The record is saved with the adapter.
        """
        return self._encoder(adapter_name).keep_best(score, greater_is_better)

    @locked
    def keep_best_prompt_of(self, token_ids: Sequence[int], score: float, adapter_name: str | None = None) -> None:
        """Record a prompt as the best, whatever was recorded before; where several scores were weighed against others.

        Raises:
            ValueError: ids that the prompt must not hold, or of another length.
        """
        encoder = self._encoder(adapter_name)
        encoder.record_best(as_ids(token_ids, "token_ids").to(encoder.ids.device), score)

    @locked
    def best_prompt(self, adapter_name: str | None = None) -> tuple[list[int], float] | None:
        """Ids and score of the best prompt recorded by `keep_best_prompt`, or None."""
        encoder = self._encoder(adapter_name)
        return None if encoder.best is None else (encoder.best_ids.tolist(), encoder.best)

    @locked
    def use_prompt(self, token_ids: Sequence[int], adapter_name: str | None = None, resize: bool = False) -> None:
        """Move the latent onto the rows of these tokens; `use_prompt(best_prompt()[0])` goes back to the best.

        Args:
            token_ids: the prompt.
            adapter_name: None for the active one.
            resize: take a prompt of another length too. The latent is then a new parameter: make the optimizer after.

        Raises:
            ValueError: no list of ids, ids that the prompt must not hold, or of another length without `resize`.
        """
        encoder = self._encoder(adapter_name)
        ids = as_ids(token_ids, "token_ids").to(encoder.ids.device)
        encoder.check_ids(ids)
        if resize and len(ids) != len(encoder.ids):
            encoder.resize(len(ids))
            name, config = adapter_name or self.active_adapter, encoder.config
            self.prompt_tokens[name] = torch.arange(len(ids) * (config.num_transformer_submodules or 1))
        encoder.set_ids(ids)
        encoder.config.found_by = None  # whoever found it says so afterwards
        encoder.config.label_bias = None

    # -- what the prompt needs beside its text --------------------------------------------------------------------

    def keep_label_bias(self, bias: LabelBias | None, adapter_name: str | None = None) -> None:
        """Keep the numbers that `calibrate` found with the prompt that it holds now: `classify` adds them, and they are
        saved with the adapter and shown in its card and report. None takes them away.

        Raises:
            ValueError: no label bias.
        """
        encoder = self._encoder(adapter_name)
        if bias is not None and not isinstance(bias, LabelBias):
            raise ValueError(f"`bias` is a {type(bias).__name__} and must be what `calibrate` returned, or None.")
        encoder.config.label_bias = None if bias is None else {**bias.to_dict(), "prompt": encoder.digest()}

    def label_bias(self, adapter_name: str | None = None) -> LabelBias | None:
        """The numbers kept with the prompt; None for none, and with a warning once the prompt is another one."""
        encoder = self._encoder(adapter_name)
        stored = encoder.config.label_bias
        if stored is None:
            return None
        if stored["prompt"] != encoder.digest():
            warnings.warn(
                "the label bias that was kept is that of another prompt and is not used; call `calibrate` again and "
                "keep what it returns, or take it away with `model.keep_label_bias(None)`.",
                stacklevel=2,
            )
            return None
        return LabelBias.from_dict(stored)

    def _forget_old_bias(self, adapter_name: str) -> None:
        """Take away numbers that are those of another prompt, before saving."""
        encoder = self._encoder(adapter_name)
        stored = encoder.config.label_bias
        if stored is not None and stored["prompt"] != encoder.digest():
            encoder.config.label_bias = None

    # -- the perplexity model -------------------------------------------------------------------------------------

    def set_perplexity_model(self, model: PreTrainedModel) -> None:
        """Score the prompt with this causal LM (same tokenizer; frozen here, not saved) instead of the task model.

        Raises:
            ValueError: no language-model head, or another vocabulary.
        """
        check_scorer(model, self._encoder(None).table)
        self.__dict__["_perplexity_model"] = [model.to(self.device).requires_grad_(False).eval()]

    def _scorer(self) -> PreTrainedModel | None:
        """The separate perplexity model, loaded when first needed."""
        if "_perplexity_model" not in self.__dict__:
            name = self.active_peft_config.perplexity_model_name_or_path
            if name is None:
                return None
            if self.active_peft_config.from_file and not self.active_peft_config.load_named_models:
                raise ValueError(
                    f"the saved config names {name!r} as its perplexity model, which is not loaded because a file says "
                    "so. If you want it: `continue_training(..., load_named_models=True)`, or "
                    f"`model.set_perplexity_model(AutoModelForCausalLM.from_pretrained({name!r}))`."
                )
            self.set_perplexity_model(load_named_model(resolve(name)))
        scorer: PreTrainedModel = self.__dict__["_perplexity_model"][0]
        return scorer

    # -- one thread at a time -------------------------------------------------------------------------------------

    @locked
    def train(self, mode: bool = True) -> Any:
        """As `nn.Module.train`; waits while another thread measures the model."""
        return super().train(mode)

    @locked
    def set_adapter(self, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """As PEFT's; waits while another thread runs the model."""
        super().set_adapter(adapter_name, *args, **kwargs)

    def add_adapter(self, adapter_name: str, peft_config: Any, *args: Any, **kwargs: Any) -> None:
        """As PEFT's; the config stays as it is, so that it may be used for another model too."""
        later = hasattr(self, "prompt_encoder") and isinstance(peft_config, InterpPromptConfig)
        super().add_adapter(adapter_name, copy.deepcopy(peft_config) if later else peft_config, *args, **kwargs)

    # -- for the forward passes -----------------------------------------------------------------------------------

    def _setup_prompt_encoder(self, adapter_name: str) -> None:
        config = self.peft_config[adapter_name]
        if not isinstance(config, InterpPromptConfig):
            super()._setup_prompt_encoder(adapter_name)
            return
        task = prompt_task(config.task_type)
        if task is not None and config.placement not in task.placements:  # set after the config was checked
            raise ValueError(
                f"`prompt_position={config.prompt_position!r}` is nothing for {task.words} (`{task.name}`); here it "
                f"must be {listed([repr(placement.name) for placement in task.placements])}."
            )
        if config.special_token_ids is None:
            mask = [] if config.mask_token_id is None else [config.mask_token_id]
            config.special_token_ids = sorted({*config_token_ids(self.base_model.config), *mask})
        config.loaded_base = getattr(self.base_model, "name_or_path", None) or None
        text_config = self.base_model.config.get_text_config()
        check_prompt_length(config.num_virtual_tokens or 0, text_config)  # before a vector is made of each
        super()._setup_prompt_encoder(adapter_name)
        self._encoder(adapter_name).placed_by_ours = True
        if config.leading_token_ids is None:
            config.leading_token_ids = named_token_ids(self.base_model.config, ("bos",))
        check_prompt_length(config.num_virtual_tokens or 0, text_config)  # a text may have set it
        encoder = self._encoder(adapter_name)
        encoder.same_table = _check_fingerprint(config, encoder.table, self.base_model)

    def load_adapter(self, model_id: str | os.PathLike[str], adapter_name: str, *args: Any, **kwargs: Any) -> Any:
        """As PEFT's; a checkpoint that does not fit leaves no half-loaded adapter behind.

        Raises:
            ValueError: tensors that are missing, foreign, not finite or of wrong shapes, or vectors that are not those
                of the ids.
        """
        known = adapter_name in self.peft_config
        try:
            return super().load_adapter(model_id, adapter_name, *args, **kwargs)
        except KeyError as error:  # of a module that was trained with the prompt
            self._forget(adapter_name, known)
            raise ValueError(
                f"the adapter {str(model_id)!r} declares trained modules but has no tensor {error}; it is incomplete, "
                "ask for it anew or save it again."
            ) from error
        except SafetensorError as error:
            self._forget(adapter_name, known)
            raise ValueError(
                f"the weights of {str(model_id)!r} cannot be read ({error}); ask for them anew, or save them again."
            ) from error
        except Exception:
            self._forget(adapter_name, known)
            raise

    def _forget(self, adapter_name: str, known: bool) -> None:
        """Take out an adapter that could not be loaded, unless it was there before."""
        if not known and adapter_name in self.peft_config:
            self.delete_adapter(adapter_name)

    def _encoder(self, adapter_name: str | None) -> InterpPromptEmbedding:
        name = adapter_name or self.active_adapter
        for candidate, encoder in self.prompt_encoder.items():
            if candidate == name and isinstance(encoder, InterpPromptEmbedding):
                return encoder
        raise ValueError(f"adapter {name!r} is no InterpPrompt adapter; adapters here: {sorted(self.prompt_encoder)}.")

    @property
    def _readable_prompt_active(self) -> bool:
        return isinstance(self.active_peft_config, InterpPromptConfig)

    def _prompt(self) -> tuple[InterpPromptEmbedding, Prompt]:
        encoder = self._encoder(None)
        if self.training and not self.__dict__.get("_whole"):
            check_whole(self, encoder.latent)
            self.__dict__["_whole"] = True
        return encoder, encoder.prompt()

    def _compose(self, prompt: Prompt, last_column_is_read: bool = False, **text: Any) -> Composed:
        return compose_inputs(
            prompt,
            self.word_embeddings,
            self.active_peft_config.leading_token_ids or (),
            as_ids=self.active_peft_config.projects and not prompt.vectors.requires_grad,
            last_column_is_read=last_column_is_read,
            placement=self.active_peft_config.placement,
            **text,
        )

    def _check_room(self, text: dict[str, Any], counts_padding: Callable[[], bool] = lambda: False) -> None:
        """Refuse rows that the model has no positions for; whether padding takes any is asked only of long ones."""
        given = text["input_ids"] if text["input_ids"] is not None else text["inputs_embeds"]
        length = self.active_peft_config.num_virtual_tokens
        if given is not None and may_lack_room(self.base_model, length + given.shape[1]):
            mask = None if counts_padding() else text["attention_mask"]
            check_room(self.base_model, length, given.shape[1], mask)

    def _takes(self, argument: str) -> bool:
        return argument in inspect.signature(self.base_model.forward).parameters

    def _wants_term(self) -> bool:
        return self.training and bool(self.active_peft_config.loss_terms)

    def _needs_own_logits(self) -> bool:
        """Whether a term reads the prompt's NLL under the task model itself."""
        needed = any(term.needs_nll for term in self.active_peft_config.loss_terms)
        return self.training and needed and self._scorer() is None

    def _add_term(
        self,
        task_loss: Tensor,
        share: Tensor | float,
        encoder: InterpPromptEmbedding,
        prompt: Prompt,
        logits: Tensor | None = None,
        hidden: Tensor | None = None,
        losses: Tensor | None = None,
    ) -> Tensor:
        """Task loss joined with the terms; `share` as in `join_losses`, the rest as in `task_model_nll`."""
        config = self.active_peft_config
        nll = cache(partial(self._prompt_nll, encoder, prompt, logits, hidden, losses))
        inputs = TermInputs(prompt.ids, prompt.rows, prompt.latent, nll)
        values = {term: term.function(inputs) for term in config.loss_terms}
        encoder.statistics |= {term.name: value.detach() for term, value in values.items()}
        encoder.settle()  # the model's pass has been started, so the device has work while this waits
        if PERPLEXITY in values and encoder.gradient_norm_wanted:
            self._note_gradient(encoder, prompt, values[PERPLEXITY])
        if not torch.compiler.is_compiling():
            values = {term: encoder.terms.term(value) for term, value in values.items()}
        return join_losses(config, encoder.steps, task_loss, values, share, encoder.full_weight)

    def _expect_terms(self, encoder: InterpPromptEmbedding, text: dict[str, Any]) -> None:
        """Have the terms' gradient added where the backward pass does not come to the loss that is returned here."""
        device = encoder.latent.device.type
        scaled = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
        encoder.terms.expect(lambda: None if scaled else self._term_gradient(encoder, text))

    def _term_gradient(self, encoder: InterpPromptEmbedding, text: dict[str, Any]) -> Gradient | None:
        """What the terms add to the latent's gradient, from a pass over the prompt alone."""
        config, leaf = self.active_peft_config, encoder.latent.detach().requires_grad_()
        prompt = encoder.prompt_at(leaf * encoder.unit, encoder.ids.clone())
        logits, hidden = None, None
        with torch.random.fork_rng(devices=[]), keeping_activations(self.base_model):  # nothing changes elsewhere
            if self._needs_own_logits():
                if self.base_model.get_output_embeddings() is None:
                    return None
                logits, hidden = self._prompt_alone(prompt, text)
            nothing = torch.zeros((), device=leaf.device)
            terms = self._add_term(nothing, 1.0, encoder, prompt, logits, hidden)
        (gradient,) = torch.autograd.grad(terms, leaf, allow_unused=True)
        if PERPLEXITY.name in encoder.statistics:
            encoder.watch(terms, encoder.statistics[PERPLEXITY.name])
        convex = PERPLEXITY in config.loss_terms and config.perplexity_combination == "convex"
        share = 1 - config.perplexity_weight_at(encoder.steps, encoder.full_weight) if convex else 1.0
        return (torch.zeros_like(leaf) if gradient is None else gradient), share

    def _prompt_alone(self, prompt: Prompt, text: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Logits and states of the prompt without any text; see `causal_lm`."""
        raise NotImplementedError

    def _prompt_nll(
        self,
        encoder: InterpPromptEmbedding,
        prompt: Prompt,
        logits: Tensor | None,
        hidden: Tensor | None,
        losses: Tensor | None,
    ) -> Tensor:
        """Of the prompt in nats per token, under the separate perplexity model or the task model."""
        config, scorer = self.active_peft_config, self._scorer()
        sides = config.perplexity_gradient
        if scorer is not None:
            return scorer_nll(encoder, prompt, scorer, _known_to(scorer, config.leading_token_ids), sides)
        if logits is None or hidden is None:
            name = "perplexity_weight" if config.target_perplexity is None else "target_perplexity"
            raise ValueError(
                f"`{name}={getattr(config, name)}` needs a causal language-model head, which "
                f"{type(self.base_model).__name__} has not; set `perplexity_model_name_or_path` to a causal LM with "
                "the same tokenizer (or call `set_perplexity_model`), or use weight 0."
            )
        return task_model_nll(encoder, prompt, self.base_model, logits, hidden, sides, losses)

    def _note_gradient(self, encoder: InterpPromptEmbedding, prompt: Prompt, nll: Tensor) -> None:
        if not (nll.requires_grad and prompt.latent.requires_grad) or recomputes_activations(self.base_model):
            return
        encoder.gradient_norm_wanted = False
        (gradient,) = torch.autograd.grad(nll, prompt.latent, retain_graph=True, allow_unused=True)
        encoder.statistics["perplexity_gradient_norm"] = gradient.norm() if gradient is not None else torch.tensor(0.0)

    def _check_loss(self, loss: Tensor | None) -> None:
        """Have a broken loss noticed before it can do lasting harm.

        Raises:
            FloatingPointError: the training loss is NaN or infinite; on a GPU in the next step, or before saving.
        """
        if self.training and loss is not None:
            encoder = self._encoder(None)
            encoder.settle()
            known = encoder.statistics if PERPLEXITY in self.active_peft_config.loss_terms else {}
            encoder.watch(loss, known.get(PERPLEXITY.name))


def _known_to(scorer: PreTrainedModel, leading_ids: list[int] | None) -> list[int]:
    """The leading ids in front of a prompt for the scorer: its BOS where the task model has one."""
    return [i for i in named_token_ids(scorer.config, ("bos",)) if i in (leading_ids or [])][:1]


def _check_fingerprint(config: InterpPromptConfig, table: Tensor, base_model: PreTrainedModel) -> bool:
    """Warn where the base model's table is not the one that the prompt was made for; returns whether it is."""
    here, made_for = table_fingerprint(table), config.table_fingerprint
    same = made_for is None or same_table(made_for, here)
    if made_for is not None and not same:
        warnings.warn(
            f"this prompt was trained on base model {config.base_model_name_or_path!r} (embedding table "
            f"{made_for[0]:.0f} x {made_for[1]:.0f}), but {getattr(base_model, 'name_or_path', '')!r} has another "
            f"({here[0]:.0f} x {here[1]:.0f}): its ids and vectors mean something else here. Load the base model it "
            "was trained on, or paste the prompt as text.",
            stacklevel=2,
        )
    config.table_fingerprint = here if made_for is None or not config.inference_mode else made_for
    return same
