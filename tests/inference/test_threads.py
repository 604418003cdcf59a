"""Threads that share a model get what a single thread gets, and leave the model as it was."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel, PromptTuningConfig, get_peft_model

from peft_interp import (
    InterpPromptConfig,
    Verbalizer,
    classify,
    embedded,
    measure_faithfulness,
    measure_scrutability,
    read_prompt,
    report_prompt,
)
from peft_interp.inference.eval_mode import eval_mode
from peft_interp.inference.head import tapped_head
from peft_interp.inference.model_lock import lock_owner, model_lock
from peft_interp.metrics.comparison import watched

TEXTS = ["A wonderful film.", "Dull, and far too long for what it has to say.", "Great fun!", "I slept."]
VERBALIZER = Verbalizer("{prompt} {text} It was", ["terrible", "great"])
SECONDS = 300  # until a thread that waits for nothing counts as stuck
Calls = dict[str, Callable[[], Any]]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return embedded.load_tokenizer()


def adapter(tokenizer: Any) -> Any:
    """A model with two readable prompts, of which the first is active."""
    config = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 8}
    model = get_peft_model(embedded.load_model(), InterpPromptConfig(**config))
    model.add_adapter("other", InterpPromptConfig(**config))
    for name, text in (("default", "Is this film review positive or negative?"), ("other", "I want you to act.")):
        model.use_prompt(tokenizer.encode(text, add_special_tokens=False), adapter_name=name, resize=True)
    return model


def rows(tokenizer: Any) -> Dataset:
    data = Dataset.from_dict({"sentence": TEXTS, "label": [1, 0, 1, 0]})
    return VERBALIZER.encode_dataset(tokenizer, data)


def calls(model: Any, tokenizer: Any) -> Calls:
    """Everything that a service would ask a model for."""
    data, ids = rows(tokenizer), torch.tensor([tokenizer.encode("The film was")])
    known = VERBALIZER.label_token_ids(tokenizer)
    return {
        "classify": lambda: classify(model, tokenizer, TEXTS, VERBALIZER, progress=False),
        "faithfulness": lambda: measure_faithfulness(model, tokenizer, data, known, progress=False, effect_rows=2),
        "other adapter": lambda: measure_faithfulness(
            model, tokenizer, data, known, progress=False, token_effects=False, adapter_name="other"
        ),
        "scrutability": lambda: measure_scrutability(model, tokenizer, "Is this film good?"),
        "read": lambda: read_prompt(model, tokenizer),
        "report": lambda: report_prompt(
            model, tokenizer, data, VERBALIZER, progress=False, token_effects=False
        ).to_dict(),
        "text": lambda: model.prompt_text(tokenizer),
        "generate": lambda: model.generate(input_ids=ids, max_new_tokens=5, do_sample=False).tolist(),
        "forward": lambda: model(input_ids=ids).logits.tolist(),
        "base": lambda: model.get_base_model()(input_ids=ids).logits.tolist(),  # the user's own, which takes no lock
    }


def state(model: Any) -> list[Any]:
    modes = [module.training for module in model.modules()]
    gradients = [parameter.requires_grad for parameter in model.parameters()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    return [modes, gradients, hooks, model.active_adapter]


def in_threads(count: int, jobs: list[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(count) as pool:
        return [future.result(timeout=SECONDS) for future in [pool.submit(job) for job in jobs]]


@pytest.mark.parametrize("threads", [4, 8])
def test_threads_get_what_a_single_thread_gets(tokenizer: Any, threads: int) -> None:
    model = adapter(tokenizer).eval()
    asked = calls(model, tokenizer)
    alone = {name: repr(call()) for name, call in asked.items()}
    before = state(model)
    order = [name for name in asked for _ in range(3 if name == "report" else 6)]
    Random(threads).shuffle(order)
    found = in_threads(threads, [asked[name] for name in order])
    for name, value in zip(order, found, strict=True):
        assert repr(value) == alone[name], name
    assert state(model) == before


def test_many_threads_classify_with_a_model_in_training_mode(tokenizer: Any) -> None:
    """The 256 calls of which 248 used to raise; modes that differ between modules stay as they are."""
    model = adapter(tokenizer).train()
    model.get_base_model().transformer.drop.eval()
    before = state(model)
    alone = [classify(model, tokenizer, text, VERBALIZER, progress=False) for text in TEXTS]
    jobs = [lambda text=text: classify(model, tokenizer, text, VERBALIZER, progress=False) for text in TEXTS * 64]
    assert in_threads(4, jobs) == alone * 64
    assert state(model) == before


def test_adapters_on_one_base_model_share_its_lock(tokenizer: Any) -> None:
    base = embedded.load_model().eval()
    stock = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    models = [
        get_peft_model(base, config)
        for config in (InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4), stock)
    ]
    assert {lock_owner(model) for model in (*models, torch.nn.DataParallel(models[0]))} == {base}
    alone = [classify(model, tokenizer, TEXTS, VERBALIZER, progress=False) for model in models]
    jobs = [lambda model=model: classify(model, tokenizer, TEXTS, VERBALIZER, progress=False) for model in models * 20]
    assert in_threads(4, jobs) == alone * 20


def test_a_thread_nests_and_others_wait(gpt2: Callable[..., Any], with_prompt: Callable[..., PeftModel]) -> None:
    model = with_prompt(gpt2())
    entered = threading.Event()

    def enter() -> None:
        with model_lock(model.get_base_model()):
            entered.set()

    waiting = threading.Thread(target=enter)
    with model_lock(model), eval_mode(model), eval_mode(model.get_base_model()):
        waiting.start()
        assert not entered.wait(0.2)
    waiting.join(SECONDS)
    assert entered.is_set()


def test_two_models_in_either_order_never_wait_for_each_other(gpt2: Callable[..., Any]) -> None:
    first, second = gpt2(), gpt2()

    def both(*models: Any) -> int:
        with model_lock(*models), model_lock(models[1]), model_lock(models[0]):
            return 1

    assert sum(in_threads(4, [lambda: both(first, second), lambda: both(second, first)] * 200)) == 400


def test_a_report_may_be_scored_by_the_model_of_another_report(tokenizer: Any) -> None:
    models = [adapter(tokenizer), adapter(tokenizer)]
    pairs = [models, models[::-1]]
    jobs = [
        lambda a=a, b=b: measure_scrutability(a, tokenizer, "Is it good?", perplexity_model=b).score for a, b in pairs
    ]
    assert len(set(in_threads(4, jobs * 10))) == 1


def test_a_tapped_head_is_tapped_in_its_own_thread_only(gpt2: Callable[..., Any]) -> None:
    model, ids = gpt2(), torch.tensor([[5, 6, 7]])
    whole = model(ids).logits
    with tapped_head(model, torch.tensor([1])):
        assert model(ids).logits.shape[1] == 1
        assert torch.equal(in_threads(1, [lambda: model(ids).logits])[0], whole)


def test_logits_are_collected_in_their_own_thread_only(gpt2: Callable[..., Any]) -> None:
    model, ids = gpt2(), torch.tensor([[5, 6, 7]])
    whole = model(ids, labels=ids)
    with watched(model, torch.tensor([[False, True, False]])) as seen:
        other = in_threads(1, [lambda: model(ids, labels=ids)])[0]
        assert seen == []
        model(ids, labels=ids)
        assert len(seen) == 1
    assert torch.equal(other.logits, whole.logits)
    assert torch.equal(other.loss, whole.loss)


def test_locks_do_not_keep_a_model_alive(gpt2: Callable[..., Any]) -> None:
    model = gpt2()
    with model_lock(model, "no model", None):
        kept = weakref.ref(model)
    del model
    gc.collect()
    assert kept() is None
