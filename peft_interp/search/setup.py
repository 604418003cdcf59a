"""Puts a search for fluent prompts together, and says clearly what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from peft_interp.inference.batching import gradient_batches
from peft_interp.inference.eval_mode import eval_mode
from peft_interp.inference.models import input_embeddings
from peft_interp.metrics.references import human_prompts
from peft_interp.scoring.checkpointing import ARCHIVE_NAME
from peft_interp.scoring.examples import Examples, asked_texts
from peft_interp.scoring.prompt_scorer import PerplexityModel, PromptScorer
from peft_interp.scoring.setup import own_perplexity_model, processes_of
from peft_interp.scoring.task_scorer import is_causal
from peft_interp.search.config import PromptSearchConfig
from peft_interp.search.constraints import ConstraintInputs, Constraints, description_of
from peft_interp.search.front import fluency_scale
from peft_interp.search.gradient_moves import swap_gains
from peft_interp.search.instruct_moves import InstructModel
from peft_interp.search.moves import MOVES, Move, shares_of
from peft_interp.search.proposals import ProposalSettings, Proposer, TaskExamples
from peft_interp.search.search import FluentSearch
from peft_interp.text.placement import IGNORED
from peft_interp.text.rows import read_rows
from peft_interp.text.token_filter import allowed_tokens
from peft_interp.text.tokenization import start_id, vocabulary_texts
from peft_interp.tuner.embedding import encoder_of

if TYPE_CHECKING:
    from accelerate import Accelerator
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GRADIENT_EXAMPLES = 16


def make_search(
    model: PeftModel,
    args: PromptSearchConfig,
    accelerator: Accelerator,
    train: Examples,
    scorer: PromptScorer,
    moves: Sequence[Move] = MOVES,
    label_words: Sequence[str] = (),
    asked: InstructModel | None = None,
) -> FluentSearch:
    """The search for an adapter's prompt.

    Args:
        model: the adapter.
        args: settings.
        accelerator: the processes.
        train: examples of the training reward.
        scorer: what prompts are worth.
        moves: kinds of proposals.
        label_words: those of a classification task.
        asked: the instruct model that proposes; None for the language model that proposes all else.

    Raises:
        ValueError: no language model that can propose and score, or lengths that leave nothing.
    """
    config, task = model.active_peft_config, scorer.task
    longest = args.longest_prompt or config.num_virtual_tokens
    if longest < args.shortest_prompt:
        raise ValueError(
            f"`shortest_prompt={args.shortest_prompt}` is more than the {longest} tokens that a prompt may have; raise "
            "`longest_prompt` or `num_virtual_tokens`."
        )
    shares = shares_of(args, moves)
    drawing = (args.proposal_temperature, args.proposal_top_p)
    settings = ProposalSettings(shares, args.shortest_prompt, longest, *drawing)
    perplexity_model, proposing = scorer.perplexity_model, _proposing(scorer, train)
    allowed = encoder_of(model, model.active_adapter).tokens.allowed
    start = start_id(proposing.tokenizer or task.tokenizer, proposing.model.config)
    shown = _shown(train, scorer, label_words)
    proposer = Proposer(
        proposing.model, task.tokenizer, allowed, settings, proposing.leading_ids, start, task=shown, instruct=asked
    )
    assert perplexity_model is not None
    scale = fluency_scale(
        perplexity_model.model,
        perplexity_model.tokenizer or task.tokenizer,
        args.max_perplexity,
        args.target_percentile,
        separate_model=perplexity_model is not proposing,
    )
    path = Path(str(args.output_dir)) / ARCHIVE_NAME if args.should_save else None
    constraints = Constraints(ConstraintInputs(args, task.tokenizer, label_words, train.inputs, task.model.device))
    search = FluentSearch(proposer, scale, allowed, constraints, scorer, train, args, processes_of(accelerator), path)
    follows = any(share and move.needs == "gradient" for move, share in shares.items())
    if train.rows and follows and scorer.task_reward != "none":  # else the loss is not what is sought
        proposer.gains = _Gains(search, args.seed)
    return search


def instruct_model(
    adapter: PeftModel,
    model: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase | None,
    device: torch.device | str,
) -> InstructModel | None:
    """The user's proposing model, which answers with what the adapter's filter would let through in its vocabulary.

    Args:
        adapter: whose prompts are proposed.
        model: any causal LM that knows a chat; None for none.
        tokenizer: its tokenizer.
        device: where it runs.

    Raises:
        ValueError: one without the other, no chat template, or no causal LM.
    """
    if model is None and tokenizer is None:
        return None
    if model is None or tokenizer is None:
        given, lacking = ("model", "tokenizer") if tokenizer is None else ("tokenizer", "model")
        raise ValueError(
            f"`proposal_{given}` is given without `proposal_{lacking}`; pass both, or none of them: then the model "
            "that proposes all else is asked, if its tokenizer has a chat template."
        )
    name = type(model).__name__
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            f"`proposal_tokenizer` (for {name}) has no chat template, in which the model would be asked; pass an "
            "instruct model with its tokenizer, or set `chat_template`."
        )
    if not model.can_generate() or model.config.is_encoder_decoder:
        raise ValueError(f"`proposal_model` is a {name}, which is no causal language model; pass one that chats.")
    table, config = input_embeddings(model).weight, adapter.active_peft_config
    if len(tokenizer) > len(table):
        raise ValueError(
            f"`proposal_tokenizer` has {len(tokenizer)} tokens and `proposal_model` ({name}) knows {len(table)}; pass "
            "the model's own tokenizer."
        )
    allowed = allowed_tokens(table, tokenizer, config.allowed_tokens)
    banned = {word.strip().lower() for word in config.banned_words or ()}
    allowed &= torch.tensor([text.strip().lower() not in banned for text in vocabulary_texts(tokenizer, len(table))])
    return InstructModel(model.to(device), tokenizer, allowed)  # type: ignore[arg-type]


def start_prompts(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, args: PromptSearchConfig, search: FluentSearch
) -> list[list[int]]:
    """The adapter's prompt, the user's texts and description, and human-written prompts that may be in the front.

    Raises:
        ValueError: a text of the user that the adapter cannot hold.
    """
    starts: list[list[int]] = []
    longest, placement = search.proposer.settings.longest, search.scorer.task.placement
    for text in [*([args.improve] if args.improve else []), *(args.start_texts or [])]:
        ids = placement.encode_prompt(tokenizer, text)
        if not search.candidate(ids).fits:
            raise ValueError(
                f"the start text {text!r} has {len(ids)} tokens and the adapter cannot hold it: prompts have "
                f"{args.shortest_prompt} to {longest} tokens that its `allowed_tokens` let through. Change the text, "
                "or raise `longest_prompt`."
            )
        starts.append(ids)
    words = description_of(args, search.proposer.task.label_words) if args.names_its_task else None
    if words:
        described = search.candidate(placement.encode_prompt(tokenizer, words))
        starts += [list(described.ids)] if described.fits and not search.constraints.broken([described])[0] else []
    known = [placement.encode_prompt(tokenizer, text) for text in human_prompts()]
    fitting = [c for ids in known if search.proposer.settings.fits(len(ids)) and (c := search.candidate(ids)).fits]
    broken = search.constraints.broken(fitting)
    usable = [list(c.ids) for c, name in zip(fitting, broken, strict=True) if name in ("", "patterns")]
    drawn = Random(args.seed).sample(usable, min(args.human_starts, len(usable)))
    return [model.prompt_token_ids(), *starts, *drawn]


def _shown(train: Examples, scorer: PromptScorer, label_words: Sequence[str]) -> TaskExamples:
    """What proposals may be made of."""
    rows = _labelled_rows(train, scorer.task.tokenizer, label_words)
    return TaskExamples(_pairs(train, scorer, label_words), label_words, rows, scorer.task.placement, scorer.writes)


def _labelled_rows(
    train: Examples, tokenizer: PreTrainedTokenizerBase, label_words: Sequence[str]
) -> list[tuple[str, str]]:
    """The training rows as the model is asked about them, with their label words; none for other tasks."""
    if train.gold is None or not label_words or not train.rows:
        return []
    texts = asked_texts(train.rows, tokenizer)
    return [(text, label_words[gold]) for text, gold in zip(texts, train.gold.tolist(), strict=True)]


def _pairs(train: Examples, scorer: PromptScorer, label_words: Sequence[str]) -> list[tuple[str, str]]:
    """The training rows' texts with their answers, where they have any: labels, or what a reward compares with."""
    if train.gold is not None and label_words:
        return [(text, label_words[gold]) for text, gold in zip(train.inputs, train.gold.tolist(), strict=True)]
    if train.rows:
        answers = [[i for i in row["labels"] if i != IGNORED] for row in train.rows]
        decoded = scorer.task.tokenizer.batch_decode(answers, skip_special_tokens=True)  # EOS ends a written answer
        return list(zip(train.inputs, decoded, strict=True))
    column = next((name for f in scorer.functions.values() if (name := getattr(f, "reference_column", None))), None)
    known = train.columns.get(column or "", [])
    return [(text, str(answer)) for text, answer in zip(train.inputs, known, strict=False) if answer is not None]


def _proposing(scorer: PromptScorer, train: Examples) -> PerplexityModel:
    """The language model that proposes token by token: the perplexity model, unless it has a tokenizer of its own."""
    perplexity_model, task = scorer.perplexity_model, scorer.task
    if perplexity_model is None:
        raise ValueError(
            "the search needs a causal language model that proposes and judges prompts, which the task model is not; "
            "pass one with the same tokenizer as `perplexity_model`."
        )
    if perplexity_model.tokenizer is None or perplexity_model.tokenizer.get_vocab() == task.tokenizer.get_vocab():
        return perplexity_model
    own = own_perplexity_model(task, train) if is_causal(task.model) else None
    if own is None:
        raise ValueError(
            "the perplexity model has a tokenizer of its own, so it cannot propose prompts, and the task model is no "
            "causal language model; pass a `perplexity_model` with the task model's tokenizer."
        )
    return own


class _Gains:
    """`swap_gains` on a few training examples, the same in the whole run; counted as three passes each."""

    def __init__(self, search: FluentSearch, seed: int) -> None:
        task, train = search.scorer.task, search.train
        places = sorted(Random(seed).sample(range(len(train)), min(GRADIENT_EXAMPLES, len(train))))
        self.rows = read_rows([train.rows[i] for i in places], task.leading_ids, task.placement)
        self.search, self.causal, self.batches = search, is_causal(task.model), gradient_batches(task.model)

    def __call__(self, ids: Sequence[int]) -> Tensor:
        task = self.search.scorer.task
        self.search.evaluations += 3 * len(self.rows)
        with eval_mode(task.model):
            return swap_gains(task.model, ids, self.rows, self.causal, self.batches)
