"""`InterpPromptConfig`: everything a user can set about an interpretable prompt."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from peft import PeftType, PromptTuningConfig, PromptTuningInit
from peft.utils import CONFIG_NAME

from peft_interp.records import weight_settings
from peft_interp.text.placement import MARKED, PLACEMENTS, START, Placement, placement_named
from peft_interp.text.token_filter import TOKEN_FILTERS
from peft_interp.tuner.loss_terms import LOSS_TERMS, PERPLEXITY, LossTerm
from peft_interp.tuner.projection import SIMILARITIES
from peft_interp.tuner.saved_adapter import MOST_TOKENS, check_config
from peft_interp.tuner.stored_config import PEFT_TYPE_NAME, from_stored, to_stored
from peft_interp.tuner.task_types import TASK_TYPES, listed, names_where, prompt_task

DEFAULT_PROMPT_LENGTH = 10
FIRST_CONTROLLED_WEIGHT = 0.03


@dataclass
class InterpPromptConfig(weight_settings("TermWeights", LOSS_TERMS), PromptTuningConfig):  # type: ignore[misc]
    """Configuration of a prompt that is trained like prompt tuning and consists of real tokens.

    The defaults are plain PEZ (arXiv 2302.03668): cosine projection, no perplexity term. In memory the config is a
    prompt-tuning config, so every branch of PEFT applies; a file is as `tuner/stored_config.py` has it. The weights of
    the loss's terms (`perplexity_weight`) are made from the records in `tuner/loss_terms.py`.

    Raises:
        ValueError: for values outside what the fields' help texts allow.
    """

    num_virtual_tokens: int | None = field(  # type: ignore[assignment]
        default=None,
        metadata={"help": "Prompt length in tokens. None: 10, or as many as the initial text has."},
    )
    prompt_tuning_init: PromptTuningInit | str = field(
        default=PromptTuningInit.SAMPLE_VOCAB,
        metadata={
            "help": "Start of the latent: SAMPLE_VOCAB (random allowed tokens), TEXT (`prompt_tuning_init_text`), or "
            "RANDOM (standard normal, as PEFT's prompt tuning; usually far from every row). `init_words` overrides it."
        },
    )
    init_words: list[str] | None = field(
        default=None,
        metadata={
            "help": "Words whose tokens, repeated to the prompt's length, start the latent. PEZ's language experiment "
            "starts from the label words."
        },
    )
    init_text_fit: str = field(
        default="warn",
        metadata={
            "help": "What to do when the initial text is not as long as the prompt: 'warn' (repeat a short text, cut a "
            "long one, as PEFT's prompt tuning, and say so), 'repeat' (a short text; a long one is an error), "
            "'truncate' (a long text; a short one is an error) or 'error'."
        },
    )
    prompt_position: str = field(
        default=START.name,
        metadata={
            "help": "'start': the prompt stands before the text (after BOS). 'end': right before the answer, as "
            "RLPrompt's '{text} {prompt}'. That is before a row's first label that is not -100, and after the last "
            "token of a row without labels, so leave the answer out where you give no labels. In a masked LM "
            "(FEATURE_EXTRACTION) the answer is the first mask token. Other tasks have none to stand in front of. "
            "'template': where each row marks it (a 0 of its `attention_mask` between its tokens), as a `Verbalizer` "
            "does whose template has {prompt} inside, a chat's turn included, and `mark_prompt` for other heads."
        },
    )
    projection_metric: str = field(
        default="cosine",
        metadata={
            "help": "Nearest token by 'cosine' (PEZ), 'dot' or 'euclidean'; 'none' trains a plain soft prompt that "
            "gets the same reports."
        },
    )
    target_perplexity: float | None = field(
        default=None,
        metadata={
            "help": "How readable the prompt shall be, instead of a weight: the weight rises while the prompt's "
            "perplexity is above this and falls while it is below. It starts from `perplexity_weight`, or from 0.03. "
            "`peft_interp.metrics.references.human_perplexity` gives that of human-written prompts."
        },
    )
    perplexity_gradient: str = field(
        default="both",
        metadata={
            "help": "Sides of the NLL that carry gradient: 'context' (PEZ's reference code), 'target' "
            "(is this token likely here), or 'both'."
        },
    )
    perplexity_combination: str = field(
        default="additive",
        metadata={"help": "'additive': task + w * nll; 'convex': (1 - w) * task + w * nll, as in PEZ's code (w <= 1)."},
    )
    perplexity_start_step: int = field(
        default=0, metadata={"help": "Optimizer steps before the perplexity term sets in."}
    )
    perplexity_warmup_steps: int = field(
        default=0, metadata={"help": "Optimizer steps over which its weight then rises linearly to the full value."}
    )
    perplexity_model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "A causal LM with the same tokenizer that scores the prompt instead of the task model; needed for "
            "models without a language-model head. `model.set_perplexity_model(lm)` sets one that is in memory."
        },
    )
    allowed_tokens: str = field(
        default="all",
        metadata={
            "help": "'all', 'printable', 'ascii', 'lines' (ASCII and line ends) or 'words'. Special, added, unused and "
            "zero-norm rows are never used."
        },
    )
    banned_token_ids: list[int] | None = field(
        default=None, metadata={"help": "Token ids the prompt must not contain."}
    )
    special_token_ids: list[int] | None = field(
        default=None,
        metadata={
            "help": "Ids no prompt may hold besides the tokenizer's special ones. None: those that the base model's "
            "config names (BOS, EOS, pad, ...), written at creation."
        },
    )
    banned_words: list[str] | None = field(
        default=None,
        metadata={"help": "Words the prompt must not contain as one token, in any case; the label words, say."},
    )
    leading_token_ids: list[int] | None = field(
        default=None,
        metadata={
            "help": "Ids (BOS, CLS) that stay in front of the prompt. None: read from tokenizer and model, and saved."
        },
    )
    mask_token_id: int | None = field(
        default=None,
        metadata={
            "help": "The token an 'end' prompt stands in front of in a masked LM. None: the tokenizer's mask, written "
            "at creation."
        },
    )
    share_prefix: bool | str = field(
        default="auto",
        metadata={
            "help": "How a causal LM's training step is run; the loss is the same. True: where that is exact, the "
            "prompt once per batch instead of once per row; for `prompt_position='end'`, the text before it "
            "without gradient. False: every row with its own prompt and all logits, as stock PEFT. 'auto': the faster "
            "way for the model, the batch and the device."
        },
    )
    align_logits_with_labels: bool = field(
        default=False,
        metadata={
            "help": "Return causal-LM logits as (batch, length, vocabulary), aligned with the labels, instead of stock "
            "PEFT's (batch, prompt + length, vocabulary)."
        },
    )
    stuck_patience: int = field(default=200, metadata={"help": "Warn once when no token changed for so many steps."})
    found_by: dict[str, Any] | None = field(
        default=None, metadata={"help": "Written by trainers that score prompts: how they found this one."}
    )
    label_bias: dict[str, Any] | None = field(
        default=None,
        metadata={
            "help": "Written by `model.keep_label_bias`: the numbers that the prompt needs beside its text, one for "
            "each label word, and the digest of the prompt that they belong to."
        },
    )
    table_fingerprint: list[float] | None = field(
        default=None, metadata={"help": "Written at creation: recognises the embedding table the prompt belongs to."}
    )

    def __post_init__(self) -> None:
        # a saved config is read with the type that only files have; what it names is somebody's, perhaps a stranger's
        self.from_file = self.peft_type == PEFT_TYPE_NAME
        self.load_named_models = False  # the user's word for it
        self.loaded_base: str | None = None  # of the base model in memory, set by the model
        if self.from_file:
            check_config(self.__dict__, InterpPromptConfig)
        super().__post_init__()
        _check_choices(self)
        _check_numbers(self)
        if self.init_text_fit in ("repeat", "truncate") and self.prompt_tuning_init != PromptTuningInit.TEXT:
            raise ValueError(
                f"`init_text_fit={self.init_text_fit!r}` only applies to `prompt_tuning_init='TEXT'`; "
                f"got {str(self.prompt_tuning_init)!r}."
            )
        if self.prompt_tuning_init_text is not None and self.prompt_tuning_init != PromptTuningInit.TEXT:
            raise ValueError(
                f"`prompt_tuning_init_text={self.prompt_tuning_init_text!r}` is only used with "
                "`prompt_tuning_init='TEXT'`; set that too, or leave the text out."
            )
        if self.projection_metric == "none" and self.has_perplexity_term:
            raise ValueError(
                f"`perplexity_weight={self.perplexity_weight}` and `target_perplexity={self.target_perplexity}` need a "
                "projected prompt, but `projection_metric='none'` trains vectors that are no tokens; use 'cosine', "
                "'dot' or 'euclidean', or weight 0 and no target."
            )
        task = prompt_task(self.task_type)
        if task is not None and self.placement not in task.placements:
            able = [task.name for task in TASK_TYPES if self.placement in task.placements]
            raise ValueError(
                f"`prompt_position={self.prompt_position!r}` needs an answer to stand in front of, which only "
                f"{listed(able, 'and')} (at the mask) have; got `task_type={task.name!r}`. Use {START.name!r}, or "
                f"{MARKED.name!r} with rows that mark the place."
            )
        if self.num_virtual_tokens is None and self.prompt_tuning_init != PromptTuningInit.TEXT:
            self.num_virtual_tokens = DEFAULT_PROMPT_LENGTH
        if self.num_transformer_submodules is None:
            self.num_transformer_submodules = 1  # stock trains a second half for seq2seq that nothing ever reads

    @property
    def is_prompt_learning(self) -> bool:
        """Always true; asked by PEFT first when the task type names no model class, hence the check."""
        if self.task_type is None:
            raise ValueError(
                "`task_type=None` is not enough for a prompt, whose forward pass depends on the task; use "
                f"{listed(names_where())}."
            )
        return True

    @property
    def placement(self) -> Placement:
        """Where the prompt stands."""
        return placement_named(self.prompt_position, "prompt_position")

    @property
    def projects(self) -> bool:
        """Whether the prompt consists of real tokens."""
        return self.projection_metric != "none"

    @property
    def has_perplexity_term(self) -> bool:
        """Whether the training loss has a perplexity term."""
        return PERPLEXITY in self.loss_terms

    @property
    def loss_terms(self) -> list[LossTerm]:
        """The terms that the training loss has beside the task's."""
        targeted = (PERPLEXITY,) if self.target_perplexity is not None else ()
        return [term for term in LOSS_TERMS if getattr(self, term.setting) > 0 or term in targeted]

    @property
    def first_perplexity_weight(self) -> float:
        """The full weight at the beginning of training; without a target it stays."""
        weight: float = self.perplexity_weight
        return weight or (0.0 if self.target_perplexity is None else FIRST_CONTROLLED_WEIGHT)

    def perplexity_weight_at(self, step: int, full_weight: float | None = None) -> float:
        """Weight of the perplexity term after `step` optimizer steps, by the schedule.

        Args:
            step: optimizer steps.
            full_weight: what the schedule ends at; None: `first_perplexity_weight`.
        """
        elapsed = step - self.perplexity_start_step
        if elapsed < 0:
            return 0.0
        full = self.first_perplexity_weight if full_weight is None else full_weight
        return full * min(1.0, (elapsed + 1) / (self.perplexity_warmup_steps + 1))

    def to_dict(self) -> dict[str, Any]:
        """As PEFT's, with "INTERP_PROMPT" for the type, so that PEFT makes a config of ours of it again."""
        return {**super().to_dict(), "peft_type": PEFT_TYPE_NAME}

    @classmethod
    def from_json_file(cls, path_json_file: str, **kwargs: Any) -> dict[str, Any]:
        """The settings of a saved file by name, as `to_dict` has them."""
        return from_stored(super().from_json_file(path_json_file, **kwargs))

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """As PEFT's; a prompt before the text is written as prompt tuning, which plain PEFT loads."""
        super().save_pretrained(save_directory, **kwargs)
        path = Path(save_directory, CONFIG_NAME)
        stored = to_stored(json.loads(path.read_text(encoding="utf-8")))
        path.write_text(json.dumps(stored, indent=2, sort_keys=True), encoding="utf-8")


def _check_choices(config: InterpPromptConfig) -> None:
    choices = {
        "projection_metric": (*SIMILARITIES, "none"),
        "perplexity_gradient": ("both", "context", "target"),
        "perplexity_combination": ("additive", "convex"),
        "allowed_tokens": TOKEN_FILTERS,
        "init_text_fit": ("warn", "repeat", "truncate", "error"),
        "prompt_position": tuple(PLACEMENTS),
        "share_prefix": ("auto", True, False),
        "prompt_tuning_init": tuple(init.value for init in PromptTuningInit),
    }
    for name, allowed in choices.items():
        value = getattr(config, name)
        if value not in allowed:
            raise ValueError(f"`{name}={value!r}` is unknown; use one of {', '.join(map(str, allowed))}.")

    for name in ("init_words", "banned_words"):
        if isinstance(value := getattr(config, name), str):
            raise ValueError(f"`{name}={value!r}` must be a list of words; write `{name}=[{value!r}]`.")
        if value is not None and not all(isinstance(word, str) for word in _items(value)):
            raise ValueError(f"`{name}={value!r}` must be a list of words.")


def _check_numbers(config: InterpPromptConfig) -> None:
    assert config.peft_type == PeftType.PROMPT_TUNING
    _check_kinds(config)
    for term in LOSS_TERMS:
        weight = getattr(config, term.setting)
        if not math.isfinite(weight) or weight < 0:
            raise ValueError(f"`{term.setting}={weight}` must be a finite number >= 0; use 0 for plain PEZ.")
    weight = config.perplexity_weight
    if config.perplexity_combination == "convex" and weight > 1:
        raise ValueError(f"`perplexity_weight={weight}` must be in [0, 1] for 'convex'; use 'additive' or less weight.")
    target = config.target_perplexity
    if target is not None and not (math.isfinite(target) and target > 1):
        raise ValueError(f"`target_perplexity={target}` must be a finite number > 1; leave it out for a fixed weight.")
    for name, least in (("perplexity_start_step", 0), ("perplexity_warmup_steps", 0), ("stuck_patience", 1)):
        if getattr(config, name) < least:
            raise ValueError(f"`{name}={getattr(config, name)}` must be >= {least}.")
    length = config.num_virtual_tokens
    if length is not None and not 1 <= length <= MOST_TOKENS:
        raise ValueError(f"`num_virtual_tokens={length}` must be 1 to {MOST_TOKENS:,}; leave it out for 10.")


def _check_kinds(config: InterpPromptConfig) -> None:
    """Refuse what is no number; it would fail later, in words that do not name the setting."""
    numbers = [*(term.setting for term in LOSS_TERMS), "target_perplexity"]
    kinds: dict[str, Any] = dict.fromkeys(numbers, (Real, "number"))
    for name in ("perplexity_start_step", "perplexity_warmup_steps", "stuck_patience", "num_virtual_tokens"):
        kinds[name] = (Integral, "whole number")
    for name, (kind, called) in kinds.items():
        value = getattr(config, name)
        left_out = name in ("num_virtual_tokens", "target_perplexity") and value is None
        if not left_out and (isinstance(value, bool) or not isinstance(value, kind)):
            raise ValueError(f"`{name}={value!r}` must be a {called}.")
    ids = config.banned_token_ids
    if ids is not None and not all(isinstance(i, Integral) for i in _items(ids)):
        raise ValueError(f"`banned_token_ids={ids!r}` must be a list of token ids.")


def _items(value: Any) -> tuple[Any, ...]:
    """What is in a list; what is none stands for itself, which is no item that is allowed."""
    return tuple(value) if hasattr(value, "__iter__") else (None,)
