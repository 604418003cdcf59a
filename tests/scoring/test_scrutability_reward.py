"""The readability score as a reward: the real one by default, in one pass, and telling words from word salad."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from peft_interp.embedded import load_model, load_tokenizer
from peft_interp.inference.batching import logits_tokens
from peft_interp.metrics.scrutability import measure_scrutability, scrutability_scores
from peft_interp.scoring.candidates import Candidate
from peft_interp.scoring.config import RewardArguments
from peft_interp.scoring.examples import Examples
from peft_interp.scoring.prompt_scorer import PerplexityModel, PromptScorer, Task
from peft_interp.scoring.rewards import mixed_rewards
from peft_interp.text.placement import START

READABLE = ("Say what you think of this film.", "Is this story about the news?", "The review was about a book.")
SALAD = ("flo recomm tail Portug pitch clever", "ating Sh jud jud jud jud jud", "of this film. think you what Say")
NOTHING = Examples([], [""], {})


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer()


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model()


def scored(model: Any, tokenizer: Any, texts: tuple[str, ...], **options: Any) -> tuple[PromptScorer, list[Any]]:
    """A scorer that rewards nothing but readability, and what it gives to some texts."""
    task = Task(model, tokenizer, START, (), None)
    config = RewardArguments(output_dir="unused", report_to=[], use_cpu=True, task_reward="none")
    given = {"perplexity_model": PerplexityModel(model), "readability": {"scrutability": 1.0}, **options}
    scorer = PromptScorer(task, config, **given)
    ids = [tuple(tokenizer.encode(text, add_special_tokens=False)) for text in texts]
    candidates = [Candidate(i, text, True, True) for i, text in zip(ids, texts, strict=True)]
    return scorer, scorer.measure(candidates, NOTHING)


def test_it_is_the_score_of_measure_scrutability(model: Any, tokenizer: Any) -> None:
    texts = (*READABLE, *SALAD, "Gib an, ob der Text gut oder schlecht ist.")
    _, found = scored(model, tokenizer, texts)
    for text, scores in zip(texts, found, strict=True):
        expected = measure_scrutability(model, tokenizer, text).score
        assert scores["scrutability"] == pytest.approx(expected, abs=1e-5), text


def test_a_judge_that_runs_out_of_memory_gets_smaller_batches(model: Any, tokenizer: Any) -> None:
    """At every call of its step, NLL and readability alike; what fitted the NLL is remembered."""
    texts = (*READABLE, *SALAD)
    _, expected = scored(model, tokenizer, texts)

    def check(module: Any, args: Any, given: dict[str, Any]) -> None:
        if len(given["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    hook = model.register_forward_pre_hook(check, with_kwargs=True)
    try:
        scorer, found = scored(model, tokenizer, texts)
    finally:
        hook.remove()
    assert scorer._nll_batches.tokens < 30 * (1 + logits_tokens(model))
    for scores, whole in zip(found, expected, strict=True):
        assert scores == pytest.approx(whole, rel=1e-4)


def test_readable_prompts_are_rewarded_over_word_salad(model: Any, tokenizer: Any) -> None:
    scorer, found = scored(model, tokenizer, (*READABLE, *SALAD))
    values = torch.tensor([[scores["scrutability"]] for scores in found], dtype=torch.float64)
    rewards = mixed_rewards(values, list(scorer.weights.values()))
    assert rewards[: len(READABLE)].min() > rewards[len(READABLE) :].max() + 0.5


def test_a_single_token_has_no_score(model: Any, tokenizer: Any) -> None:
    _, (scores,) = scored(model, tokenizer, (" film",))
    assert scores["scrutability"] is None
    assert math.isnan(scrutability_scores(model, tokenizer, [[tokenizer.encode(" film")[0]]])[0])


def test_it_is_measured_only_where_it_counts(model: Any, tokenizer: Any) -> None:
    _, (scores,) = scored(model, tokenizer, READABLE[:1], readability={"nll": -1.0})
    assert "scrutability" not in scores


def test_a_score_of_the_users_own_takes_its_place(model: Any, tokenizer: Any) -> None:
    def own(given: Any, known: Any, text: str) -> Any:
        assert (given, known) == (model, tokenizer)
        return None if "news" in text else SimpleNamespace(score=len(text))

    _, found = scored(model, tokenizer, READABLE[:2], scrutability=own)
    assert [scores["scrutability"] for scores in found] == [len(READABLE[0]), None]


def test_a_model_that_reads_nothing_cannot_judge(gpt2: Any, tokenizer: Any) -> None:
    with pytest.raises(
        ValueError, match=r"`scrutability_reward_weight=1.0` needs a language model that finds people's"
    ):
        scored(gpt2(vocab_size=len(tokenizer)), tokenizer, READABLE)
    with pytest.raises(ValueError, match=r"`scrutability_reward_weight=1.0` needs a causal language model that reads"):
        scored(gpt2(vocab_size=len(tokenizer)), tokenizer, READABLE, perplexity_model=None)
