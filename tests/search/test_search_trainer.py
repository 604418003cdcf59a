"""The search as a user runs it: it finds readable prompts, delivers the front, and leaves an ordinary adapter."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import EarlyStoppingCallback

from peft_interp import PromptSearchTrainer, Verbalizer, embedded, text_nll
from peft_interp.metrics.flags import find_flags
from peft_interp.metrics.references import human_perplexity
from peft_interp.scoring import pareto, prompt_scorer
from peft_interp.scoring.archive import Archive
from peft_interp.search import proposals
from peft_interp.search.constraints import readable
from peft_interp.text.tokenization import token_texts

Build = Callable[..., Any]


@pytest.fixture(scope="module")
def trained(searcher_in: Build, tmp_path_factory: pytest.TempPathFactory) -> PromptSearchTrainer:
    trainer = searcher_in(tmp_path_factory.mktemp("trained"), logging_steps=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trainer.train()
    return trainer


def test_it_beats_its_start(trained: PromptSearchTrainer) -> None:
    first = trained.search.archive.records[0]  # random tokens of the adapter
    best = max(trained.search.scorer.reward(r.scores) for r in trained.search.archive.records if r.split == "train")
    assert best > trained.search.scorer.reward(first.scores)
    entries = [e for e in trained.state.log_history if "reward" in e]
    assert [e["step"] for e in entries] == [1, 2, 3]
    assert entries[-1]["evaluations_max"] >= 8 * (7 + 8 + 8)
    assert entries[-1]["best_prompt"] in {r.text for r in trained.search.archive.records}
    assert "grad_norm" not in entries[-1]


def test_nothing_in_the_front_is_beaten_degenerate_or_lost_in_the_text(
    trained: PromptSearchTrainer, tokenizer: Any
) -> None:
    records = [r for r in trained.search.archive.records if r.split == "train"]
    for split in ("dev", "train"):
        front = trained.front(split)
        assert front
        for one in front:
            reward, nll = trained.search.scorer.reward(one.scores), one.scores["nll"]
            assert tokenizer.encode(one.text) == list(one.ids)
            assert not any(f.unreadable for f in find_flags(one.text, token_texts(tokenizer, one.ids)))
            assert not any(
                trained.search.scorer.reward(r.scores) > reward and r.scores["nll"] < nll
                for r in (trained.front(split) if split == "dev" else records)
                if r.fits and readable(r.text, r.ids, tokenizer)
            )
        rewards = [trained.search.scorer.reward(r.scores) for r in front]
        assert rewards == sorted(rewards, reverse=True)


def test_the_adapter_holds_a_prompt_of_the_front(trained: PromptSearchTrainer, tokenizer: Any) -> None:
    ids = trained.model.prompt_token_ids()
    assert tuple(ids) in {r.ids for r in trained.front()}
    assert trained.model.prompt_text(tokenizer) in {r.text for r in trained.front()}
    assert trained.model.best_prompt()[0] == ids


def test_scores_are_those_of_the_adapter_itself(trained: PromptSearchTrainer, tokenizer: Any) -> None:
    record = trained.search.archive.find(tuple(trained.model.prompt_token_ids()), "dev")
    rows = embedded.TASKS["sentiment"].encode_dataset(tokenizer, _dataset(trained.eval_dataset))
    words = embedded.TASKS["sentiment"].label_token_ids(tokenizer)
    right = 0
    for row in rows:
        with torch.no_grad():
            logits = trained.model(input_ids=torch.tensor([row["input_ids"][:-1]])).logits[0, -1]
        right += words[int(logits[words].argmax())] == row["labels"][-1]
    assert record.scores["accuracy"] == pytest.approx(right / len(rows))
    assert record.scores["nll"] == pytest.approx(text_nll(trained.model.get_base_model(), record.ids), abs=1e-4)


def test_the_saved_adapter_is_an_ordinary_one_of_its_own_length(
    trained: PromptSearchTrainer, language_model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    trained.save_model(str(tmp_path / "saved"))
    text = trained.model.prompt_text(tokenizer)
    assert (tmp_path / "saved" / "prompt.txt").read_text(encoding="utf-8") == text
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert f"- found by: `'PromptSearchTrainer'`, {trained.state.global_step} steps, " in card.replace('"', "'")
    assert "- optimizer steps" not in card
    loaded = PeftModel.from_pretrained(embedded.load_model(), str(tmp_path / "saved"))
    assert loaded.prompt_text(tokenizer) == text
    assert loaded.peft_config["default"].num_virtual_tokens == len(trained.model.prompt_token_ids())
    ids = torch.tensor([[400, 500, 600]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, trained.model(input_ids=ids).logits)


def test_settings_of_every_type_go_along_with_the_adapter(searcher: Build, tmp_path: Path) -> None:
    settings = {"known_words": False, "screening_examples": None, "exploration": 0.5, "start_texts": ["Is it good?"]}
    trainer = searcher(**settings, max_steps=1, task_description="a film")
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    loaded = PeftModel.from_pretrained(embedded.load_model(), str(tmp_path / "saved"))
    found = loaded.peft_config["default"].found_by["settings"]
    assert settings.items() <= found.items()
    assert found["task_description"] == "a film"
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert "`known_words` = `False`" in card
    assert "`screening_examples` = `None`" in card


def test_a_target_is_kept(searcher: Build, language_model: Any, tokenizer: Any) -> None:
    limit = human_perplexity(language_model, tokenizer, 60)
    trainer = searcher(target_percentile=60.0)
    trainer.train()
    record = trainer.search.archive.find(tuple(trainer.model.prompt_token_ids()), "dev")
    assert math.exp(record.scores["nll"]) <= limit
    rewards = [trainer.search.scorer.reward(r.scores) for r in trainer.front() if math.exp(r.scores["nll"]) <= limit]
    assert trainer.search.scorer.reward(record.scores) == max(rewards)


def test_without_held_out_data_the_training_scores_choose(searcher: Build) -> None:
    trainer = searcher(options={"eval_dataset": None})
    trainer.train()
    assert trainer.front() == trainer.front("train")
    assert tuple(trainer.model.prompt_token_ids()) in {r.ids for r in trainer.front()}


def test_evaluations_log_the_front_and_early_stopping_works(searcher: Build) -> None:
    patience = EarlyStoppingCallback(early_stopping_patience=1, early_stopping_threshold=1e9)
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "max_steps": 6}
    trainer = searcher(options={"callbacks": [patience]}, load_best_model_at_end=True, **options)
    trainer.train()
    evaluations = [e for e in trainer.state.log_history if "eval_hypervolume" in e]
    assert 2 <= len(evaluations) < 6
    assert {"eval_accuracy", "eval_nll", "eval_prompt", "eval_front_size"} <= set(evaluations[0])
    areas = [e["eval_hypervolume"] for e in evaluations]
    assert areas == sorted(areas)


def test_the_held_out_front_is_measured_from_held_out_scores(searcher: Build) -> None:
    """These training reviews are the easier ones: the worst prompt does better on them than the best on the others."""
    patience = EarlyStoppingCallback(early_stopping_patience=2)
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "max_steps": 6}
    trainer = searcher(options={"callbacks": [patience]}, load_best_model_at_end=True, seed=2, **options)
    trainer.train()
    evaluations = [e for e in trainer.state.log_history if "eval_hypervolume" in e]
    assert trainer.search.worst["train"] > evaluations[0]["eval_reward"] > trainer.search.worst["dev"]
    assert all(e["eval_hypervolume"] > 0 for e in evaluations)
    assert trainer.state.global_step > 3  # two evaluations without a better front would have ended it
    start = trainer.search.archive.records[0]
    assert trainer.search.archive.find(start.ids, "dev").step == 1


def test_custom_rewards_and_no_labels(searcher: Build, reviews: list[dict[str, Any]]) -> None:
    def long_words(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        return [sum(len(word) for word in text.split()) / max(1, len(text.split())) for text in completions]

    rows = [{"sentence": row["sentence"]} for row in reviews]
    options = {"reward_funcs": long_words, "verbalizer": None, "train_dataset": rows[:6], "eval_dataset": None}
    trainer = searcher(options=options, max_steps=3)
    trainer.train()
    front = trainer.front()
    assert front
    assert all(r.scores["long_words"] is not None for r in front)


def test_the_prompt_may_stand_at_the_end(searcher: Build, adapter: Build, tokenizer: Any) -> None:
    model = adapter(prompt_position="end")
    trainer = searcher(model, {"verbalizer": Verbalizer("{text} {prompt}", ("terrible", "great"))}, max_steps=2)
    trainer.train()
    assert model.prompt_text(tokenizer).startswith(" ")
    assert model.prompt_survives(tokenizer, "", preceding_text="A fine film.")


def test_screening_spares_the_examples_of_poor_prompts(searcher: Build) -> None:
    trainer = searcher(screening_examples=4, max_steps=2)
    trainer.train()
    records = [r for r in trainer.search.archive.records if r.split == "train"]
    screened, whole = [r for r in records if r.rows], [r for r in records if r.rows is None]
    assert len({r.rows for r in screened}) == 1
    gold = trainer.search.train.gold[list(screened[0].rows)]
    assert gold.tolist().count(0) == 2
    assert len(screened) / 2 <= len(whole) <= len(screened) / 2 + 2
    assert all(r.rows is None for r in trainer.front("train"))


def test_gradient_moves_are_counted(searcher: Build) -> None:
    counts = []
    for share in (0.0, 5.0):
        trainer = searcher(max_steps=2, gradient_share=share, options={"eval_dataset": None})
        trainer.train()
        pairs = sum(8 for r in trainer.search.archive.records)
        counts.append(trainer.search.evaluations - pairs)
    assert counts[0] == 0
    assert counts[1] == 4 * 3 * 8  # four parents, three passes each, on all eight examples


def test_passes_over_prompts_alone_are_counted(searcher: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []

    def counting(function: Callable[..., Any], place: int) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            rows.append(len(args[place]))
            return function(*args, **kwargs)

        return counted

    for name in ("extract_features", "continue_from"):
        monkeypatch.setattr(proposals, name, counting(getattr(proposals, name), 1))
    monkeypatch.setattr(prompt_scorer, "token_nlls", counting(prompt_scorer.token_nlls, 1))
    trainer = searcher(max_steps=2, screening_examples=4)
    trainer.train()
    assert trainer.search.prompt_passes == sum(rows) > 8 * 4
    logged = [e["prompt_passes_max"] for e in trainer.state.log_history if "prompt_passes_max" in e]
    assert logged == sorted(logged)
    assert 0 < logged[-1] < trainer.search.prompt_passes  # the evaluation after the last step


def test_gradient_moves_only_where_the_loss_is_sought(searcher: Build) -> None:
    def short(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        return [-float(len(text)) for text in completions]

    for reward, has_gains in (("none", False), ("auto", True), ("negative_loss", True)):
        trainer = searcher(options={"reward_funcs": short}, task_reward=reward)
        assert (trainer.search.proposer.gains is not None) == has_gains


def test_every_training_makes_its_steps(searcher: Build) -> None:
    trainer = searcher(max_steps=1, options={"eval_dataset": None})
    counts = []
    for _ in range(3):
        trainer.train()
        counts.append(len(trainer.search.archive))
    assert counts == [8, 16, 24]


def test_the_front_of_many_prompts_needs_no_table_of_pairs(
    trained: PromptSearchTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(points: Any) -> Any:
        raise AssertionError(f"a table of {len(points)} x {len(points)}")

    monkeypatch.setattr(pareto, "dominates", refused)
    assert trained.front("train")


def test_the_front_can_be_scored_on_other_rows(trained: PromptSearchTrainer) -> None:
    before, front = len(trained.search.archive), trained.front()
    again = trained.scores_on(front, trained.eval_dataset)
    for record, scores in zip(front, again, strict=True):
        assert scores["accuracy"] == record.scores["accuracy"]
        assert scores["loss"] == pytest.approx(record.scores["loss"], abs=1e-5)
    assert len(trained.search.archive) == before
    fewer = trained.scores_on(front[:1], trained.eval_dataset[:2])
    assert fewer[0]["accuracy"] in (0.0, 0.5, 1.0)


def test_the_archive_is_on_the_disk(trained: PromptSearchTrainer) -> None:
    written = Archive.read(Path(trained.args.output_dir) / "archive.jsonl")
    assert [r.ids for r in written.records] == [r.ids for r in trained.search.archive.records]


def _dataset(rows: Any) -> Any:
    from datasets import Dataset

    return Dataset.from_list(list(rows))


def test_rounds_are_made_once(searcher: Build) -> None:
    """A new `Examples` at every step would fill the memory with caches of keys and values."""
    trainer = searcher(screening_examples=4, max_steps=3, options={"eval_dataset": None})
    trainer.train()
    assert len(trainer.search.scorer._task_scorers) == 2


def test_a_step_without_anything_new_goes_by(searcher: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = searcher(max_steps=2)
    monkeypatch.setattr(trainer.search.proposer, "propose", lambda parents, count, seed: [])
    trainer.train()
    assert trainer.state.global_step == 2
    assert trainer.front()


def test_a_target_below_what_people_write_is_kept(searcher: Build) -> None:
    trainer = searcher(max_perplexity=2.0)
    assert trainer.search.scale.floor <= math.log(2.0)
    trainer.train()
    record = trainer.search.archive.find(tuple(trainer.model.prompt_token_ids()), "dev")
    assert record.scores["nll"] <= max(math.log(2.0), min(r.scores["nll"] for r in trainer.front()))
