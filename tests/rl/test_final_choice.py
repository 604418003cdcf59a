"""What the adapter holds in the end: the best of all that was found, on examples that compare."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel

from peft_interp.scoring.archive import ScoredPrompt, front

Build = Callable[..., Any]


def tried_on(trainer: Any, split: str) -> list[ScoredPrompt]:
    return [record for record in trainer.search.archive.records if record.split == split and record.rows is None]


def best_of(records: list[ScoredPrompt]) -> ScoredPrompt:
    return max(records, key=lambda record: record.scores["gap"] or 0)


def chosen_of(trainer: Any) -> ScoredPrompt:
    """By hand: the most fluent of the held-out ones within one standard error of the best gap."""
    tried = tried_on(trainer, "dev")
    best = best_of(tried).scores
    least = (best["gap"] or 0.0) - (best["reward_error"] or 0.0)
    within = [record for record in tried if (record.scores["gap"] or 0.0) >= least]
    readable = [record for record in within if not trainer.search.contender(record).flagged] or within
    found = min(readable, key=lambda record: (record.scores["nll"] or 0.0, -(record.scores["gap"] or 0.0)))

    def beats(one: ScoredPrompt, other: ScoredPrompt) -> bool:
        a, b = ((r.scores["accuracy"] or 0.0, -(r.scores["nll"] or 0.0)) for r in (one, other))
        return a[0] > b[0] and a[1] >= b[1]

    while better := [r for r in tried if beats(r, found) and not trainer.search.contender(r).flagged]:
        found = max(better, key=lambda record: (record.scores["accuracy"] or 0.0, record.scores["gap"] or 0.0))
    return found


def test_held_out_rows_choose_at_the_end_without_any_evaluation(searcher: Build) -> None:
    trainer = searcher()
    assert trainer.args.eval_strategy == "no"
    trainer.train()
    assert len(tried_on(trainer, "dev")) >= 3
    chosen = chosen_of(trainer)
    assert tuple(trainer.model.prompt_token_ids()) == chosen.ids
    assert trainer.search.best.split == "dev"
    assert trainer.model.best_prompt()[1] == chosen.scores["gap"]
    assert trainer.model.active_peft_config.found_by["chosen_by"] == trainer.search.best.chosen_by != ""


def test_the_chosen_prompt_is_on_the_runs_own_front(searcher: Build) -> None:
    """The printed front of accuracy and fluency has no prompt that beats it on both axes."""
    for seed in range(3):
        trainer = searcher(seed=seed, eval_candidates=6)
        trainer.train()
        chosen = trainer.search.archive.find(trainer.model.prompt_token_ids(), "dev")
        shown = front(trainer.search.archive.records, ("accuracy",), ("nll",))
        beaten = [
            r
            for r in shown
            if r.scores["accuracy"] > chosen.scores["accuracy"] and r.scores["nll"] < chosen.scores["nll"]
        ]
        assert [r for r in beaten if not trainer.search.contender(r).flagged] == []


def test_what_was_found_after_the_last_evaluation_is_tried(searcher: Build) -> None:
    trainer = searcher(max_steps=5, eval_strategy="steps", eval_steps=3)
    trainer.train()
    assert {record.step for record in tried_on(trainer, "dev")} == {3, 5}
    assert tuple(trainer.model.prompt_token_ids()) == chosen_of(trainer).ids


def test_an_evaluation_at_the_last_step_has_the_last_word(searcher: Build) -> None:
    trainer = searcher(max_steps=4, eval_strategy="steps", eval_steps=2)
    trainer.train()
    (*_, last) = [entry for entry in trainer.state.log_history if "eval_prompt" in entry]
    assert last["eval_prompt"] == trainer.search.best.text
    assert last["eval_score"] == chosen_of(trainer).scores["gap"]
    new = [record for record in tried_on(trainer, "dev") if record.step == 4]
    assert len(new) <= 1 + trainer.args.eval_candidates, "the greedy prompt and the promising ones, once"


@pytest.mark.parametrize("metric", ["score", "eval_score"])
def test_the_best_prompt_comes_back_though_its_step_was_not_saved(metric: str, searcher: Build, tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 3, "load_best_model_at_end": True}
    between = 0
    for seed in range(4):
        run = {"max_steps": 6, "seed": seed, "output_dir": str(tmp_path / str(seed)), "metric_for_best_model": metric}
        trainer = searcher(eval_strategy="steps", eval_steps=1, **saving, **run)
        trainer.train()
        between += (trainer.state.best_global_step or 0) % 3 > 0
        assert tuple(trainer.model.prompt_token_ids()) == trainer.search.best.ids
        assert trainer.evaluate()["eval_score"] == trainer.search.best.score
    assert between, "no run found its best prompt between two saves; the test shows nothing"


def test_another_metric_brings_its_checkpoint_back(searcher: Build, gpt2: Build) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1, "load_best_model_at_end": True}
    metric = {"metric_for_best_model": "loss", "greater_is_better": True}  # the worst, which the score would not take
    trainer = searcher(max_steps=8, seed=1, eval_strategy="steps", eval_steps=1, **saving, **metric)
    trainer.train()
    saved = PeftModel.from_pretrained(gpt2(), trainer.state.best_model_checkpoint)
    assert trainer.model.prompt_token_ids() == saved.prompt_token_ids()
    assert trainer.evaluate()["eval_loss"] == trainer.state.best_metric
    assert tuple(trainer.model.prompt_token_ids()) != trainer.search.best.ids


def test_scores_on_different_examples_are_not_compared(searcher: Build) -> None:
    """One example a step: the luckiest prompt is not the best one."""
    trainer = searcher(max_steps=12, examples_per_step=1, options={"eval_dataset": None})
    trainer.train()
    search, whole = trainer.search, tried_on(trainer, "train")
    assert len(whole) >= 6
    best = best_of(whole)
    assert tuple(trainer.model.prompt_token_ids()) == search.best.ids == best.ids
    (measured,) = search.scorer.measure([search.candidate(best.ids)], search.train)
    assert trainer.model.best_prompt()[1] == search.best.reward == pytest.approx(measured["gap"], rel=1e-5)
    lucky = max(record.scores["gap"] or 0 for record in search.archive.records)
    assert lucky > search.best.reward + 20, "no prompt was lucky; the test shows nothing"
    assert {record.ids for record in front(search.archive.records, ("gap",), ("nll",), "train")} <= {
        record.ids for record in whole
    }


def test_checkpoints_of_such_a_run_hold_the_best_so_far_and_can_be_resumed(
    searcher: Build, gpt2: Build, tmp_path: Path
) -> None:
    settings = {"examples_per_step": 2, "save_strategy": "steps", "save_steps": 2, "max_steps": 6}
    options = {"eval_dataset": None}
    straight = searcher(options=options, **settings)
    start = straight.model.prompt_token_ids()
    straight.train()
    for step in (2, 4, 6):
        held = PeftModel.from_pretrained(gpt2(), tmp_path / "run" / f"checkpoint-{step}").prompt_token_ids()
        known = [record for record in tried_on(straight, "train") if record.step <= step]
        assert tuple(held) == best_of(known).ids
    assert straight.model.prompt_token_ids() == held != start
    resumed = searcher(options=options, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    assert resumed.search.archive.records == straight.search.archive.records
    assert resumed.search.best == straight.search.best


def test_a_part_as_large_as_all_examples_is_all_of_them(searcher: Build) -> None:
    trainer = searcher(examples_per_step=6, options={"eval_dataset": None})
    trainer.train()
    assert all(record.rows is None and record.step < 4 for record in trainer.search.archive.records)
