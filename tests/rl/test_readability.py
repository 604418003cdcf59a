"""The interpretability rewards: measured always, rewarded with a weight, mixed without regard to scales."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from peft_interp import text_nll
from peft_interp.scoring.prompt_scorer import PromptScorer
from peft_interp.text.tokenization import leading_ids

Build = Callable[..., Any]


def nll_of(trainer: Any) -> tuple[float, float]:
    """Mean NLL of the first and of the last ten steps' prompts."""
    values = [entry["rewards/nll/mean"] for entry in trainer.state.log_history if "rewards/nll/mean" in entry]
    return sum(values[:10]) / 10, sum(values[-10:]) / 10


def test_the_perplexity_reward_makes_prompts_more_fluent(searcher: Build) -> None:
    trainer = searcher(max_steps=60, prompts_per_step=12, perplexity_reward_weight=0.9)
    trainer.train()
    first, last = nll_of(trainer)
    assert last < first - 0.5


def test_the_nll_is_the_task_models_after_its_bos(searcher: Build) -> None:
    trainer = searcher(max_steps=1)
    trainer.train()
    for record in trainer.search.archive.records[:3]:
        expected = text_nll(trainer.model.get_base_model(), record.ids, [1])
        assert record.scores["nll"] == pytest.approx(expected, abs=1e-5)


def test_a_judge_of_its_own_measures_in_the_task_models_stead(searcher: Build, llama: Build) -> None:
    judge = llama()
    trainer = searcher(options={"perplexity_model": judge}, max_steps=1, perplexity_reward_weight=0.5)
    trainer.train()
    record = trainer.search.archive.records[0]
    front = leading_ids(trainer.processing_class)  # the judge sees what its tokenizer puts in front of a text
    assert front
    assert record.scores["nll"] == pytest.approx(text_nll(judge, record.ids, front), abs=1e-5)


def test_penalties_lower_the_repeats(searcher: Build) -> None:
    trainer = searcher(max_steps=1, repetition_penalty_weight=0.3, wordless_penalty_weight=0.1)
    weights = trainer.search.scorer.weights
    assert weights == pytest.approx({"gap": 0.6, "repetition_penalty": -0.3, "wordless_share": -0.1})


def test_scrutability_is_any_function_of_model_tokenizer_and_text(searcher: Build, tokenizer: Any) -> None:
    seen: list[Any] = []

    def score(model: Any, known: Any, text: str) -> Any:
        seen.append((model, known))
        return SimpleNamespace(score=float(len(text)))

    trainer = searcher(options={"scrutability": score}, max_steps=1, scrutability_reward_weight=0.5)
    trainer.train()
    assert seen[0] == (trainer.model.get_base_model(), tokenizer)
    for record in trainer.search.archive.records:
        assert record.scores["scrutability"] == len(record.text)
    assert trainer.search.scorer.weights == {"gap": 0.5, "scrutability": 0.5}


def test_choosing_weighs_as_training_does(searcher: Build) -> None:
    """`total` is the mix of the training reward, standardised by the first step, so that no scale dominates."""
    trainer = searcher(max_steps=2, perplexity_reward_weight=0.5)
    trainer.train()
    search = trainer.search
    (gap_mean, gap_std), (nll_mean, nll_std) = search.reference["gap"], search.reference["nll"]
    scores = {"gap": gap_mean + gap_std, "nll": nll_mean - nll_std}
    assert search.total(scores) == pytest.approx(0.5 + 0.5)
    first = [record.scores for record in search.archive.records if record.step == 0 and record.split == "train"]
    assert gap_mean == pytest.approx(torch.tensor([s["gap"] for s in first]).mean().item(), rel=1e-4)
    assert best_of(search, search.scorer)


def best_of(search: Any, scorer: PromptScorer) -> bool:
    """Whether the reported reward of the best prompt is the task's, in its own units."""
    record = search.archive.find(search.best.ids, "dev") or search.archive.find(search.best.ids)
    return bool(search.best.reward == scorer.reward(record.scores))


def test_negative_loss_rewards_any_labelled_data(searcher: Build) -> None:
    """No label words: rows with several labels, the reward is minus their mean cross-entropy."""
    rows = [{"input_ids": [7 + i, 8, 9, 10], "labels": [-100, -100, 9, 10]} for i in range(4)]
    options = {"verbalizer": None, "train_dataset": rows, "eval_dataset": rows}
    trainer = searcher(options=options, max_steps=40, eval_strategy="steps", eval_steps=20)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < before - 0.3
    assert after["eval_reward"] == -after["eval_loss"]
    model = trainer.model.eval()
    ids = torch.tensor([row["input_ids"] for row in rows])
    loss = model(input_ids=ids, labels=torch.tensor([row["labels"] for row in rows])).loss
    assert after["eval_loss"] == pytest.approx(loss.item(), abs=1e-5)


def test_the_prompt_may_stand_at_the_end(searcher: Build, prompted: Build) -> None:
    rows = [{"input_ids": [7 + i, 8, 9, 10], "labels": [-100, -100, -100, 10 + i % 2]} for i in range(4)]
    options = {"verbalizer": None, "train_dataset": rows, "eval_dataset": rows}
    trainer = searcher(
        prompted(prompt_position="end"), options=options, max_steps=6, eval_strategy="steps", eval_steps=3
    )
    trainer.train()
    metrics = trainer.evaluate()
    ids = torch.tensor([row["input_ids"] for row in rows])
    loss = trainer.model.eval()(input_ids=ids, labels=torch.tensor([row["labels"] for row in rows])).loss
    assert metrics["eval_loss"] == pytest.approx(loss.item(), abs=1e-5)
