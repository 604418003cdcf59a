"""`PromptSearchConfig`: everything a user can set about the search for fluent prompts, as `TrainingArguments`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from peft_interp.records import weight_settings
from peft_interp.scoring.config import RewardArguments
from peft_interp.search.constraints import has_phrase
from peft_interp.search.moves import MOVES

SHARES = tuple(move.setting for move in MOVES if move.setting)


@dataclass
class PromptSearchConfig(weight_settings("MoveShares", MOVES), RewardArguments):  # type: ignore[misc]
    """`TrainingArguments` for `PromptSearchTrainer`.

    A step scores `prompts_per_step` new prompts per process and accumulated batch. There is no learning rate. The
    shares of the moves (`continuation_share`, ...) are made from the records in `search/moves.py`.

    Raises:
        ValueError: for values outside what the fields' help texts allow.
    """

    max_steps: int = field(default=30, metadata={"help": "Steps; -1: use epochs (a step each)."})
    prompts_per_step: int = field(default=32, metadata={"help": "Prompts scored per process and step."})
    logging_steps: float = field(default=1, metadata={"help": "Log every so many steps, or this share of all."})
    metric_for_best_model: str | None = field(
        default="hypervolume", metadata={"help": "What early stopping goes by; of the front on the held-out data."}
    )

    max_perplexity: float | None = field(
        default=None,
        metadata={
            "help": "The adapter gets the best prompt whose perplexity is at most this. None (with "
            "`target_percentile=None`): the knee of the front."
        },
    )
    target_percentile: float | None = field(
        default=None,
        metadata={
            "help": "The same as a percentile of human-written prompts, 0 to 100: 50 asks for a prompt that is as "
            "likely as the median of them, 90 lets it be as unlikely as their tenth least likely."
        },
    )
    shortest_prompt: int = field(default=2, metadata={"help": "Tokens of a prompt at least, >= 2."})
    longest_prompt: int | None = field(
        default=None, metadata={"help": "Tokens of a prompt at most. None: the adapter's `num_virtual_tokens`."}
    )
    population_size: int = field(default=32, metadata={"help": "Prompts that new ones are made from."})
    start_texts: list[str] | None = field(
        default=None, metadata={"help": "Prompts to start from, besides the adapter's own."}
    )
    human_starts: int = field(
        default=32,
        metadata={
            "help": "Human-written prompts for other tasks that the first step starts from too (they ship with the "
            "package); 0: the language model's own words alone."
        },
    )
    known_words: bool = field(
        default=True,
        metadata={
            "help": "Drop proposals with a word that no English dictionary has: the NLL of a prompt does not count its "
            "first token, and a search finds that out. False for jargon; other languages are left alone."
        },
    )
    judge: str | None = field(
        default=None,
        metadata={
            "help": "Drop proposals that this judge does not find readable: 'smollm2', 'embedded' or 'auto' (see "
            "`measure_scrutability`). None: only patterns that fool perplexity are dropped."
        },
    )
    names_its_task: bool = field(
        default=False,
        metadata={
            "help": "Drop proposals that do not name their task, by a sentence encoder (`measure_task_naming`); what "
            "they are compared with is `task_description`, which they also have to say word by word or in words like "
            "its own, the label words and training texts. Without a description or label words only what is clearly "
            "about something else is dropped."
        },
    )
    task_description: str | None = field(
        default=None,
        metadata={
            "help": "What the task is, in a sentence, for `names_its_task`. None: 'Is this text A or B?', of the label "
            "words."
        },
    )
    required_phrases: list[str] | None = field(
        default=None, metadata={"help": "Phrases that every prompt has to hold, in any case of letters."}
    )
    improve: str | None = field(
        default=None,
        metadata={"help": "A prompt of yours: the search starts from it and stays within `largest_change` of it."},
    )
    largest_change: float = field(
        default=0.5, metadata={"help": "Share of words that may differ from `improve`, in (0, 1]."}
    )
    proposals_per_prompt: int = field(
        default=8,
        metadata={"help": "Proposals made for each prompt that is scored; the most promising ones are chosen."},
    )
    exploration: float = field(
        default=0.25, metadata={"help": "Share of a step's prompts drawn at random from the proposals, 0 to 1."}
    )
    use_surrogate: bool = field(
        default=True,
        metadata={"help": "Guess the reward of proposals from the prompts scored so far (see `search.surrogate`)."},
    )
    screening_examples: int | None = field(
        default=32,
        metadata={
            "help": "Prompts are scored on this many training examples first, the better half then on four times as "
            "many, and so on up to all. None: on all at once."
        },
    )
    proposal_temperature: float = field(default=1.0, metadata={"help": "Temperature of continuations, > 0."})
    proposal_top_p: float = field(default=0.95, metadata={"help": "Nucleus of continuations, in (0, 1]."})
    eval_candidates: int = field(
        default=16, metadata={"help": "Prompts of the front that an evaluation scores on the held-out data, >= 1."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_perplexity is not None and self.target_percentile is not None:
            raise ValueError(
                f"`max_perplexity={self.max_perplexity}` and `target_percentile={self.target_percentile}` are "
                "two limits; give one."
            )
        _check(self, "max_perplexity", lambda x: math.isfinite(x) and x > 1, "a finite number > 1")
        _check(self, "target_percentile", lambda x: 0 <= x <= 100, "in [0, 100]")
        _check(self, "shortest_prompt", lambda x: x >= 2, "at least 2: nothing predicts a single token")
        for name in ("population_size", "proposals_per_prompt", "eval_candidates", "screening_examples"):
            _check(self, name, lambda x: x >= 1, "at least 1")
        _check(self, "human_starts", lambda x: x >= 0, ">= 0")
        _check(self, "exploration", lambda x: 0 <= x <= 1, "in [0, 1]")
        _check(self, "proposal_top_p", lambda x: 0 < x <= 1, "in (0, 1]")
        _check(self, "proposal_temperature", lambda x: math.isfinite(x) and x > 0, "a finite number > 0")
        _check(self, "largest_change", lambda x: 0 < x <= 1, "in (0, 1]")
        self._check_texts()
        for name in SHARES:
            _check(self, name, lambda x: math.isfinite(x) and x >= 0, "a finite number >= 0")
        always = [move.setting for move in MOVES if move.setting and not move.needs]
        if not any(getattr(self, name) for name in always):
            raise ValueError(f"one of {', '.join(always)} must be > 0; all are 0.")

    def _check_texts(self) -> None:
        phrases = self.required_phrases or []
        if isinstance(phrases, str) or not all(isinstance(phrase, str) and phrase.strip() for phrase in phrases):
            raise ValueError(f"`required_phrases={phrases!r}` must be a list of texts, none of them empty.")
        if self.improve is None:
            return
        if not isinstance(self.improve, str) or not self.improve.strip():
            raise ValueError(f"`improve={self.improve!r}` must be the text of a prompt; leave it out to start afresh.")
        if lacking := [phrase for phrase in phrases if not has_phrase(self.improve, phrase)]:
            raise ValueError(
                f"`improve={self.improve!r}` does not hold {lacking}, which `required_phrases` asks for; put them in."
            )


def _check(config: PromptSearchConfig, name: str, fits: object, allowed: str) -> None:
    value = getattr(config, name)
    if value is not None and not fits(value):  # type: ignore[operator]
        raise ValueError(f"`{name}={value}` must be {allowed}.")
