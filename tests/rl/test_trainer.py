"""`RLPromptTrainer` is a Trainer: it trains, logs, evaluates, saves, and stops as one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import EarlyStoppingCallback, Trainer

from peft_interp import PromptCallback, Verbalizer
from peft_interp.scoring.archive import Archive, front

Build = Callable[..., Any]


def logged(trainer: Trainer, key: str) -> list[Any]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def test_a_search_finds_a_better_prompt_than_it_starts_from(searcher: Build) -> None:
    trainer = searcher(max_steps=60, eval_strategy="steps", eval_steps=20)
    before = trainer.evaluate()
    start = trainer.model.prompt_token_ids()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_reward"] > before["eval_reward"] + 15
    assert trainer.model.prompt_token_ids() != start
    rewards = torch.tensor(logged(trainer, "reward"))
    assert rewards[-15:].mean() > rewards[:15].mean() + 5, "the policy itself has learned, not only the best of many"


def test_only_the_head_changes(searcher: Build) -> None:
    trainer = searcher(eval_strategy="steps", eval_steps=2)
    base = {name: tensor.clone() for name, tensor in trainer.model.get_base_model().state_dict().items()}
    head = {name: tensor.clone() for name, tensor in trainer.policy.head.state_dict().items()}
    trainer.train()
    assert all(torch.equal(tensor, base[name]) for name, tensor in trainer.model.get_base_model().state_dict().items())
    assert all(not torch.equal(tensor, head[name]) for name, tensor in trainer.policy.head.state_dict().items())
    optimized = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert optimized == {id(p) for p in trainer.policy.head.parameters()}


def test_every_step_logs_rewards_policy_and_best_prompt(searcher: Build, tokenizer: Any) -> None:
    trainer = searcher(perplexity_reward_weight=0.2, eval_strategy="steps", eval_steps=3)
    trainer.train()
    for key in (
        "reward",
        "reward_std",
        "entropy",
        "q_mean",
        "q_max",
        "unique_prompts",
        "cache_hit",
        "survived",
        "fits",
    ):
        assert len(logged(trainer, key)) == 4, key
    for name in ("gap", "accuracy", "loss", "nll", "repetition_penalty", "wordless_share"):
        assert len(logged(trainer, f"rewards/{name}/mean")) == 4, name
    assert logged(trainer, "best_prompt")[-1] == trainer.model.prompt_text(tokenizer)
    assert logged(trainer, "entropy")[0] == pytest.approx(math.log(61), abs=0.01), "a new policy is uniform"
    assert all(0 <= share <= 1 for share in logged(trainer, "unique_prompts"))


def test_evaluation_chooses_the_prompt_of_highest_dev_reward(searcher: Build) -> None:
    trainer = searcher(max_steps=6, eval_strategy="steps", eval_steps=2)
    trainer.train()
    dev = [record for record in trainer.search.archive.records if record.split == "dev"]
    assert len(dev) >= 5
    best = max(dev, key=lambda record: record.scores["gap"] or 0)
    assert tuple(trainer.model.prompt_token_ids()) == best.ids
    assert trainer.model.best_prompt() == (list(best.ids), best.scores["gap"])
    assert logged(trainer, "eval_reward")[-1] == logged(trainer, "eval_score")[-1] == best.scores["gap"]
    assert logged(trainer, "eval_reward") == sorted(logged(trainer, "eval_reward"))
    assert logged(trainer, "eval_prompt")[-1] == best.text


def test_without_dev_data_the_best_training_reward_decides(searcher: Build) -> None:
    trainer = searcher(options={"eval_dataset": None})
    trainer.train()
    best = max(trainer.search.archive.records, key=lambda record: record.scores["gap"] or 0)
    assert tuple(trainer.model.prompt_token_ids()) == best.ids
    assert trainer.model.best_prompt()[1] == best.scores["gap"]


def test_the_scores_are_those_of_the_adapter_itself(searcher: Build, sentences: Build, verbalizer: Verbalizer) -> None:
    """Evaluated by a stock Trainer's way, the saved adapter gets the very accuracy and loss that the search saw."""
    trainer = searcher(max_steps=3)
    trainer.train()
    tokenizer, model = trainer.processing_class, trainer.model.eval()
    metrics = trainer.evaluate()
    ids = verbalizer.label_token_ids(tokenizer)
    right, losses = [], []
    for row in sentences(10)[6:]:
        encoded = verbalizer.encode(tokenizer, row["sentence"], row["label"])
        logits = model(input_ids=torch.tensor([encoded["input_ids"][:-1]])).logits[0, -1, ids]
        right.append(float(logits.argmax() == row["label"]))
        losses.append(-logits.log_softmax(-1)[row["label"]].item())
    assert metrics["eval_accuracy"] == pytest.approx(sum(right) / 4)
    assert metrics["eval_loss"] == pytest.approx(sum(losses) / 4, abs=1e-5)


def test_the_saved_model_is_an_ordinary_adapter(searcher: Build, gpt2: Build, tokenizer: Any, tmp_path: Path) -> None:
    trainer = searcher(eval_strategy="steps", eval_steps=2)
    trainer.train()
    trainer.save_model()
    loaded = PeftModel.from_pretrained(gpt2(), tmp_path / "run")
    assert loaded.prompt_token_ids() == trainer.model.prompt_token_ids()
    assert loaded.prompt_text(tokenizer) == trainer.model.prompt_text(tokenizer)
    ids = torch.randint(3, 60, (2, 5))
    assert torch.equal(loaded.eval()(input_ids=ids).logits, trainer.model.eval()(input_ids=ids).logits)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_the_best_checkpoint_comes_back_and_early_stopping_stops(searcher: Build) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1, "load_best_model_at_end": True}
    stopping = {"callbacks": [EarlyStoppingCallback(early_stopping_patience=3)]}
    trainer = searcher(options=stopping, max_steps=60, eval_strategy="steps", eval_steps=1, **saving)
    trainer.train()
    assert trainer.state.global_step < 60
    scores = logged(trainer, "eval_score")
    assert trainer.state.best_metric == max(scores) == trainer.evaluate()["eval_score"]
    assert trainer.state.best_model_checkpoint.endswith(f"checkpoint-{scores.index(max(scores)) + 1}")


def test_other_data_is_scored_without_choosing_by_it(searcher: Build, sentences: Build) -> None:
    trainer = searcher(max_steps=2)
    trainer.train()
    before, known = trainer.model.prompt_token_ids(), len(trainer.search.archive)
    metrics = trainer.evaluate(sentences(8), metric_key_prefix="test")
    assert {"test_reward", "test_accuracy", "test_loss", "test_prompt"} <= set(metrics)
    assert trainer.model.prompt_token_ids() == before
    assert len(trainer.search.archive) == known


def test_it_starts_from_a_given_prompt(searcher: Build, prompted: Build, tokenizer: Any) -> None:
    model = prompted(prompt_tuning_init="TEXT", prompt_tuning_init_text="w7 w8 w9")
    trainer = searcher(model, eval_strategy="steps", eval_steps=2)
    trainer.train()
    first = trainer.search.archive.records[0]
    assert (first.text, first.step) == ("w7 w8 w9", 0)
    assert trainer.search.archive.find((7, 8, 9), "dev") is not None


def test_an_evaluation_before_the_first_step_chooses_nothing(searcher: Build, prompted: Build) -> None:
    """Several rewards are compared by the first step's statistics, which do not exist yet."""
    model = prompted()
    start = model.prompt_token_ids()
    settings = {"eval_strategy": "steps", "eval_steps": 2, "eval_on_start": True, "perplexity_reward_weight": 0.5}
    trainer = searcher(model, max_steps=6, prompts_per_step=12, **settings)
    trainer.train()
    assert "eval_greedy_reward" not in trainer.state.log_history[0]
    assert trainer.search.best.split == "dev"
    assert model.prompt_token_ids() != start
    assert logged(trainer, "eval_score")[-1] == trainer.search.best.score


def test_the_archive_on_disk_holds_everything_and_gives_the_trade_off(searcher: Build, tmp_path: Path) -> None:
    trainer = searcher(max_steps=5, eval_strategy="steps", eval_steps=1)
    trainer.train()
    archive = Archive.read(tmp_path / "run" / "archive.jsonl")
    assert archive.records == trainer.search.archive.records
    best = front(archive.records, higher=("accuracy",), lower=("nll",))
    assert best
    assert all(record.split == "dev" for record in best)
    json.loads((tmp_path / "run" / "archive.jsonl").read_text().splitlines()[0])


def test_an_earlier_archive_in_the_folder_is_kept(searcher: Build, tmp_path: Path) -> None:
    searcher(max_steps=1).train()
    first = (tmp_path / "run" / "archive.jsonl").read_text()
    searcher(max_steps=1, seed=1).train()
    assert (tmp_path / "run" / "archive-1.jsonl").read_text() == first
    assert (tmp_path / "run" / "archive.jsonl").read_text() != first


def test_repeated_prompts_are_looked_up(searcher: Build) -> None:
    trainer = searcher(max_steps=8, top_k=2, options={"eval_dataset": None})
    seen: list[int] = []
    measure = trainer.search.scorer.measure

    def counted(candidates: Any, *rest: Any) -> Any:
        seen.append(len(candidates))
        return measure(candidates, *rest)

    trainer.search.scorer.measure = counted
    trainer.train()
    distinct = {record.ids for record in trainer.search.archive.records}
    assert sum(seen) == len(distinct) == len(trainer.search.archive) < 48
    assert max(logged(trainer, "cache_hit")) > 0


def test_scripts_with_stock_metrics_and_callbacks_run(searcher: Build, verbalizer: Verbalizer, tokenizer: Any) -> None:
    """`compute_metrics` gets the adapter's predictions, and agrees with the search's own accuracy."""
    rows = [verbalizer.encode(tokenizer, "w10 w11 w12", i % 2) for i in range(4)]
    stock = {
        "compute_metrics": lambda prediction: {
            f"stock_{k}": v for k, v in verbalizer.accuracy(tokenizer)(prediction).items()
        },
        "preprocess_logits_for_metrics": verbalizer.label_scores(tokenizer),
        "callbacks": [PromptCallback(tokenizer)],
        "train_dataset": rows,
        "eval_dataset": rows,
    }
    trainer = searcher(options=stock, eval_strategy="steps", eval_steps=2, per_device_eval_batch_size=4)
    trainer.train()
    assert logged(trainer, "eval_stock_accuracy") == logged(trainer, "eval_accuracy")
    assert len(logged(trainer, "prompt_text")) >= 4


def test_epochs_are_passes_over_the_examples(searcher: Build) -> None:
    trainer = searcher(max_steps=-1, num_train_epochs=2, examples_per_step=2)
    trainer.train()
    assert trainer.state.global_step == 6
    records = [record for record in trainer.search.archive.records if record.split == "train"]
    assert all(len(record.rows) == 2 for record in records)
    by_step = {record.step: set(record.rows) for record in records}
    assert by_step[0] | by_step[1] | by_step[2] == by_step[3] | by_step[4] | by_step[5] == set(range(6))


def test_the_front_is_what_no_prompt_beats_in_reward_and_likelihood(searcher: Build) -> None:
    trainer = searcher(max_steps=6)
    trainer.train()
    front, search = trainer.front(), trainer.search
    assert front
    points = [(search.scorer.reward(r.scores), r.scores["nll"]) for r in front]
    assert points == sorted(points, key=lambda point: (-point[0], point[1]))
    split = front[0].split
    others = [r for r in search.archive.records if r.split == split and r.rows is None and r.fits]
    for record in others:
        reward, nll = search.scorer.reward(record.scores), record.scores["nll"]
        assert any(a >= reward and b <= nll for a, b in points)
        assert not any(reward > a and nll < b for a, b in points)
    assert trainer.front("train")
