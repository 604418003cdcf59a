"""Searches score calibrated answers: each prompt's numbers, from training rows, kept with the one that is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import nn

from peft_interp import (
    InterpPromptConfig,
    PromptSearchConfig,
    PromptSearchTrainer,
    RLPromptConfig,
    RLPromptTrainer,
    Verbalizer,
    calibrate,
    embedded,
)
from peft_interp.scoring.examples import read_examples
from peft_interp.scoring.rewards import gap_reward, label_accuracies
from peft_interp.scoring.setup import make_scorer
from peft_interp.scoring.task_scorer import TaskScorer
from peft_interp.text.label_prior import batch_bias, with_bias

TEMPLATE, WORDS = "{prompt} {text} It was", ("terrible", "great")
PLANTED = 6.0  # nats on "great", whatever the text


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return embedded.load_tokenizer()


def verbalizer(calibration: str = "batch") -> Verbalizer:
    return Verbalizer(TEMPLATE, WORDS, calibration=calibration)


def prompted(tokenizer: Any) -> Any:
    base = embedded.load_model()
    bias = torch.zeros(base.lm_head.out_features)
    bias[verbalizer().label_token_ids(tokenizer)[1]] = PLANTED
    base.lm_head.bias = nn.Parameter(bias, requires_grad=False)
    start = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "Is this film review positive or negative?"}
    return get_peft_model(
        base,
        InterpPromptConfig(task_type="CAUSAL_LM", tokenizer_name_or_path=embedded.MODEL_PATH, **start),
    )


def data(name: str, count: int) -> Any:
    return embedded.load_data("sentiment")[name].shuffle(seed=0).select(range(count))


def scorer_of(model: Any, tokenizer: Any, train: Any, calibration: str = "batch") -> Any:
    ask = verbalizer(calibration)
    return make_scorer(model, RLPromptConfig("outputs"), read_examples(tokenizer, train, ask), tokenizer, ask)


def candidates(model: Any, tokenizer: Any) -> list[Any]:
    from peft_interp.scoring.candidates import Candidate

    texts = ["Movie review:", "Is this film review positive or negative?", "The weather was cold"]
    return [Candidate(tuple(tokenizer.encode(text)), text, True, True) for text in texts]


@pytest.mark.parametrize("examples", ["train", "dev"])
def test_rewards_are_those_of_calibrated_answers(tokenizer: Any, examples: str) -> None:
    model = prompted(tokenizer)
    scorer = scorer_of(model, tokenizer, data("train", 32))
    assert scorer.calibration is not None
    train = scorer.calibration.examples
    scored = train if examples == "train" else read_examples(tokenizer, data("validation", 20), verbalizer())
    asked, ids = candidates(model, tokenizer), verbalizer().label_token_ids(tokenizer)
    found = scorer.measure(asked, scored)
    base, prompts = model.get_base_model(), [list(one.ids) for one in asked]
    bias = batch_bias(TaskScorer(base, train.rows, ids).label_log_probs(prompts))
    log_probs = TaskScorer(base, scored.rows, ids).label_log_probs(prompts)
    wanted = with_bias(log_probs, bias.unsqueeze(1))
    assert [one["accuracy"] for one in found] == label_accuracies(wanted, scored.gold).tolist()
    assert [one["gap"] for one in found] == pytest.approx(gap_reward(wanted, scored.gold).tolist(), abs=0.05)
    losses = -wanted.gather(-1, scored.gold.expand(3, -1).unsqueeze(-1)).mean((1, 2))
    assert [one["loss"] for one in found] == pytest.approx(losses.tolist(), abs=1e-3)
    raw = label_accuracies(log_probs, scored.gold).tolist()
    assert max(raw) < 0.7 < max(one["accuracy"] for one in found)


def test_a_prompts_numbers_are_those_that_calibrate_finds(tokenizer: Any) -> None:
    model = prompted(tokenizer)
    for ways in ("batch", "content_free", "fitted"):
        scorer = scorer_of(model, tokenizer, data("train", 100), ways)
        rows = None if ways == "content_free" else verbalizer().encode_dataset(tokenizer, data("train", 100))
        bias = calibrate(model, tokenizer, rows, verbalizer(ways), progress=False)
        assert scorer.label_bias(model.prompt_token_ids()).tolist() == pytest.approx(bias.values, abs=1e-3)
        assert len(scorer.calibration.examples) == bias.rows == (3 if ways == "content_free" else 64)


def test_passes_that_calibrate_are_counted_once(tokenizer: Any) -> None:
    model = prompted(tokenizer)
    whole, part = scorer_of(model, tokenizer, data("train", 32)), scorer_of(model, tokenizer, data("train", 100))
    dev, prompts = read_examples(tokenizer, data("validation", 20), verbalizer()), [(5, 6), (7, 8), (5, 6)]
    assert whole.calibration_passes(prompts, whole.calibration.examples) == 0  # they are scored there anyway
    assert whole.calibration_passes(prompts, dev) == 0
    assert part.calibration_passes(prompts, dev) == 2 * 64
    assert part.calibration_passes(prompts, dev) == 0


@pytest.mark.parametrize("kind", ["search", "rlprompt"])
def test_the_chosen_prompt_keeps_its_numbers(tokenizer: Any, tmp_path: Path, kind: str) -> None:
    common: dict[str, Any] = {"output_dir": str(tmp_path), "max_steps": 2, "prompts_per_step": 4, "report_to": "none"}
    common |= {"save_strategy": "no", "eval_strategy": "steps", "eval_steps": 1, "disable_tqdm": True}
    trainer_class: Any = PromptSearchTrainer if kind == "search" else RLPromptTrainer
    few = {"population_size": 8, "screening_examples": None, "eval_candidates": 4, "human_starts": 6}
    args: Any = (
        PromptSearchConfig(**common, **few, proposals_per_prompt=4)
        if kind == "search"
        else RLPromptConfig(**common, examples_per_step=8)
    )
    model = prompted(tokenizer)
    train, dev = data("train", 16), data("validation", 16)
    asked: dict[str, Any] = {"processing_class": tokenizer, "verbalizer": verbalizer()}
    trainer = trainer_class(model=model, args=args, train_dataset=train, eval_dataset=dev, **asked)
    trainer.train()
    bias = model.label_bias()
    again = calibrate(model, tokenizer, verbalizer().encode_dataset(tokenizer, train), verbalizer(), progress=False)
    assert bias.values == pytest.approx(again.values, abs=1e-3)
    assert bias.row_digests == again.row_digests
    assert len({*bias.row_digests}) == 16
    scores = trainer.search.archive.find(model.prompt_token_ids(), "dev").scores
    assert trainer.evaluate()["eval_accuracy"] == scores["accuracy"]
    trainer.save_model(str(tmp_path / "kept"))
    assert "numbers besides its text" in (tmp_path / "kept" / "README.md").read_text()


def test_too_few_or_one_sided_training_rows_are_refused(tokenizer: Any) -> None:
    model = prompted(tokenizer)
    with pytest.raises(ValueError, match="5 calibration rows say too little"):
        scorer_of(model, tokenizer, data("train", 5))
    one = [row for row in data("train", 60) if row["label"] == 1]
    with pytest.raises(ValueError, match="calibration rows have the label 1"):
        scorer_of(model, tokenizer, one, "fitted")
    with pytest.warns(UserWarning, match=f"all {len(one)} calibration rows have the same label, so `calibration='batc"):
        scorer_of(model, tokenizer, one, "batch")
    assert scorer_of(model, tokenizer, data("train", 5), "none").calibration is None
