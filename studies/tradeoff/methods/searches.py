"""The searches of this package that score prompts, run until the budget is used: RLPrompt and the fluent search."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import replace
from statistics import mean
from typing import Any

import torch
from peft import get_peft_model
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, set_seed

from peft_interp import PromptSearchConfig, PromptSearchTrainer, RLPromptConfig, RLPromptTrainer
from peft_interp.scoring.archive import ScoredPrompt
from studies.tradeoff.bench import Bench, Found


def rlprompt(
    bench: Bench, weight: float = 0.0, examples_per_step: int = 16, eval_every: int = 10, **settings: Any
) -> Found:
    """RLPrompt (arXiv 2205.12548): soft Q-learning, with the prompt's perplexity in the reward where `weight` says so.

    Args:
        bench: what to work with.
        weight: of log-perplexity in the reward, 0 to 1.
        examples_per_step: rows on which a step's prompts are scored; 0 for all.
        eval_every: steps between two evaluations.
        settings: of `RLPromptConfig`; `length` is the prompt's, where it is not the study's, and `calibration` the way
            in which the prompts' label priors are taken away before they are scored.
    """
    length = settings.pop("length", bench.length)
    if 0 < examples_per_step < len(bench.data.rows["train"]):
        settings["examples_per_step"] = examples_per_step
    settings["perplexity_reward_weight"] = weight
    return run_search(bench, RLPromptTrainer, RLPromptConfig, length, eval_every, False, settings)


def search(
    bench: Bench, eval_every: int = 10, label_words: bool = False, allowed_tokens: str = "ascii", **settings: Any
) -> Found:
    """One run of `PromptSearchTrainer` within the study's budget; its prompts may hold punctuation, as sentences do.

    Args:
        bench: what to work with.
        eval_every: steps between two evaluations.
        label_words: let prompts name the classes.
        allowed_tokens: "lines" lets them show labelled rows, given the length and the label words.
        settings: of `PromptSearchConfig`, and `length` and `calibration` as for `rlprompt`.
    """
    length = settings.pop("length", bench.length)
    words: dict[str, Any] = {"allowed_tokens": allowed_tokens} | ({"banned_words": None} if label_words else {})
    return run_search(bench, PromptSearchTrainer, PromptSearchConfig, length, eval_every, True, settings, words)


class SpendUntil(TrainerCallback):
    """Notes what a search has spent, and ends it before the budget is exceeded, its last evaluation included.

    A prompt that the search looked up costs nothing. What is kept back is the dearest step and the dearest evaluation
    so far; the first step, which scores what a search starts from as well, counts only where scores are calibrated,
    since all training rows are run for every prompt there. Where constraints left it few prompts, the second step
    is expected to cost as much more as it may score more of them.

    Args:
        bench: the budget.
        step: what a step is expected to cost.
        evaluation: what an evaluation is expected to cost.
        closes: whether the trainer evaluates by itself at the end of training.
        calibrated: whether scores are calibrated.
    """

    def __init__(self, bench: Bench, step: int, evaluation: int, closes: bool, calibrated: bool = False) -> None:
        self.bench, self.closes, self.calibrated = bench, closes, calibrated
        self.step, self.evaluation, self.counted = step, evaluation, 0
        self.search: Any = None  # the trainer's, set when there is one

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop where another step and its evaluations might not be paid for."""
        cost = self.count()
        self.step = max(self.step, cost if state.global_step > 1 or self.calibrated else 0)
        expected = self.step
        if self.calibrated and state.global_step == 1:  # a step was seen to cost as much as twice its prompts
            expected = max(expected, cost * 2 * args.prompts_per_step // max(1, len(self.search.archive)))
        evaluations = 1 + control.should_evaluate + self.bench.data.settings.generates
        if self.bench.budget.left < expected + evaluations * self.evaluation:
            control.should_training_stop = True
            control.should_evaluate = not self.closes

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Learn what an evaluation costs."""
        self.evaluation = max(self.evaluation, self.count())

    def count(self) -> int:
        """Pay for what was run since the last time, and return how much that was."""
        cost = self.search.evaluations - self.counted
        self.counted = self.search.evaluations
        self.bench.budget.spend(cost)
        return cost


def run_search(
    bench: Bench,
    trainer_class: Any,
    arguments_class: Any,
    length: int,
    eval_every: int,
    closes: bool,
    settings: dict[str, Any],
    prompt: dict[str, Any] | None = None,
) -> Found:
    """Search until the budget is used; the trainer chooses the prompt by its own rule on dev.

    Args:
        bench: what to work with.
        trainer_class: a trainer that scores prompts.
        arguments_class: its arguments.
        length: tokens of a prompt, at most.
        eval_every: steps between two evaluations.
        closes: whether the trainer evaluates by itself at the end of training.
        settings: of the arguments.
        prompt: settings of `InterpPromptConfig` in place of the study's.
    """
    set_seed(bench.seed)
    config = bench.prompt_config(num_virtual_tokens=length, **(prompt or {}))
    model: Any = get_peft_model(bench.model, config)
    rows, writes = bench.data.rows["train"], bench.data.settings.generates
    verbalizer = replace(bench.data.verbalizer, calibration=settings.pop("calibration", "none"))
    start = bench.score_on_dev([model.prompt_token_ids()])[0]
    with tempfile.TemporaryDirectory() as folder:
        args = _arguments(arguments_class, bench, folder, eval_every, settings)
        evaluation = (args.eval_candidates + 4) * len(bench.data.rows["dev"])  # its own prompt, and what it begins with
        step = args.prompts_per_step * (getattr(args, "examples_per_step", None) or len(rows))
        spending = SpendUntil(bench, step, evaluation, closes, verbalizer.calibration != "none")
        trainer = trainer_class(
            model=model,
            args=args,
            train_dataset=rows,
            eval_dataset=bench.data.rows["dev"],
            processing_class=bench.tokenizer,
            verbalizer=None if writes else verbalizer,
            callbacks=[spending],
        )
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        spending.search = trainer.search
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="all .* prompts of step .* got the same reward")
            trainer.train()
        spending.count()
    records = trainer.search.archive.records
    details = {"steps": trainer.state.global_step, "prompts_scored": len(records), **shares(trainer.state.log_history)}
    return found_in(bench, records, model.prompt_token_ids(), start, details)


def shares(logs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Means over the logs of what moves brought and constraints dropped, by their names; nothing for RLPrompt."""
    found: dict[str, dict[str, list[float]]] = {"yield": {}, "dropped": {}}
    for log in logs:
        for name, value in log.items():
            kind, _, own = name.partition("/")
            if own and kind in found:
                found[kind].setdefault(own, []).append(float(value))
    return {kind: {name: mean(values) for name, values in own.items()} for kind, own in found.items() if own}


def _arguments(of: Any, bench: Bench, folder: str, eval_every: int, settings: dict[str, Any]) -> Any:
    """Arguments of a run that its budget ends."""
    return of(
        output_dir=folder,
        max_steps=1_000_000,
        eval_strategy="steps",
        eval_steps=eval_every,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=bench.seed,
        dataloader_pin_memory=torch.cuda.is_available(),
        **({"task_reward": "negative_loss"} if bench.data.settings.generates else {}),
        **settings,
    )


def found_in(
    bench: Bench, archive: list[ScoredPrompt], chosen: list[int], start: ScoredPrompt, details: dict[str, Any]
) -> Found:
    """What the search's evaluations scored on dev, on the study's board."""
    tried = [record for record in archive if record.split == "dev" and record.fits]
    if bench.data.settings.generates:  # the trainer knows the loss, not whether the answer was written
        tried = _scored_again(bench, tried, tuple(chosen))
    else:
        for record in tried:
            bench.board.add(record)
    return Found.of_board(bench, chosen, start, details)


def _scored_again(bench: Bench, tried: list[ScoredPrompt], chosen: tuple[int, ...]) -> list[ScoredPrompt]:
    """The chosen prompt, and as many of the others, best loss first, as can be paid for."""
    rest = sorted(tried, key=lambda record: record.scores["loss"] or 0.0)
    ordered = list(dict.fromkeys([chosen, *(record.ids for record in rest)]))
    return bench.score_on_dev(ordered[: max(1, bench.budget.left // len(bench.data.rows["dev"]))])
