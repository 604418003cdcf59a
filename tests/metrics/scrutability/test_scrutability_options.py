"""What `measure_scrutability` measures on request, and how it treats what it is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model

from peft_interp import embedded, text_nll
from peft_interp.metrics.readability_metrics import METRICS
from peft_interp.metrics.references import human_prompts
from peft_interp.metrics.results import as_plain
from peft_interp.metrics.scrutability import measure_scrutability

Build = Callable[..., Any]
TEXT = "Is this film review positive or negative?"


def values(*arguments: Any, **options: Any) -> dict[str, float]:
    result = measure_scrutability(*arguments, **options)
    return {name: measure.value for name, measure in result.measures.items()}


def test_nll_is_that_of_text_nll_and_every_measure_has_its_direction(model: Any, tokenizer: Any) -> None:
    result = measure_scrutability(model, tokenizer, TEXT)
    nll = text_nll(model, tokenizer.encode(TEXT))
    assert result.measures["nll"].value == pytest.approx(nll, rel=1e-4)
    assert result.measures["perplexity"].value == pytest.approx(math.exp(nll), rel=1e-4)
    assert result.measures["worst_nll"].value >= nll
    better = {metric.name: metric.better for metric in METRICS}
    assert all(measure.better == better[name] for name, measure in result.measures.items())
    assert result.measures["nll"].human < result.measures["nll"].shuffled < result.measures["nll"].random
    assert as_plain(result)["readable"] is True


def test_ids_are_judged_as_they_are(model: Any, tokenizer: Any) -> None:
    ids = [i for letter in "film" for i in tokenizer.encode(letter)]
    result = measure_scrutability(model, tokenizer, None, ids=torch.tensor(ids))
    assert result.text == "film"
    assert result.measures["nll"].value == pytest.approx(text_nll(model, ids), rel=1e-4)
    assert result.measures["whole_word_share"].value == 0


def test_an_adapter_is_judged_by_its_base_model(tokenizer: Any) -> None:
    base = embedded.load_model()
    expected = values(base, tokenizer, TEXT)
    adapter = get_peft_model(base, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    assert values(adapter, tokenizer, TEXT) == expected


def test_without_references_there_is_no_percentile_and_no_verdict(model: Any, tokenizer: Any) -> None:
    result = measure_scrutability(model, tokenizer, TEXT, references=False)
    assert all(measure.percentile is None and measure.human is None for measure in result.measures.values())
    assert math.isnan(result.score)
    assert not result.readable


def test_the_prompt_is_measured_in_its_place(model: Any, tokenizer: Any) -> None:
    prompt, review = tokenizer.encode(" It was"), "The film was slow."
    found = values(model, tokenizer, " It was", template_text=f"{review}{{prompt}} terrible")
    front = tokenizer.encode(review)
    assert found["nll_in_template"] == pytest.approx(
        text_nll(model, [*front[-1:], *prompt], front[:-1]), rel=1e-4
    )  # the token in front predicts the prompt's first
    assert found["following_nll"] == pytest.approx(
        text_nll(model, [prompt[-1], *tokenizer.encode(" terrible")], [*front, *prompt[:-1]]), rel=1e-4
    )
    first = values(model, tokenizer, TEXT, template_text=" The film was slow.")
    assert first["nll_in_template"] == pytest.approx(first["nll"], rel=1e-5)


def test_in_its_place_the_prompt_stands_beside_peoples_prompts_there(model: Any, tokenizer: Any) -> None:
    """At the start that is the `nll`; after a text, people's prompts are cut to the same length and put there."""
    first = measure_scrutability(model, tokenizer, TEXT, template_text=" The film was slow.").measures
    there, alone = first["nll_in_template"], first["nll"]
    assert (there.human, there.random, there.percentile) == (alone.human, alone.random, alone.percentile)
    review, ids = "The film was slow.", tokenizer.encode(" It was")
    found = measure_scrutability(model, tokenizer, " It was", template_text=f"{review}{{prompt}}").measures
    front = tokenizer.encode(review)
    people = [tokenizer.encode(f" {text}")[: len(ids)] for text in human_prompts()]
    nlls = [text_nll(model, [front[-1], *prompt], front[:-1]) for prompt in people]
    measure = found["nll_in_template"]
    assert measure.human == pytest.approx(median(nlls), rel=1e-4)
    assert measure.percentile == pytest.approx(100 * sum(nll >= measure.value for nll in nlls) / len(nlls))
    assert (measure.shuffled, measure.random, measure.better) == (None, None, "lower")
    plain = measure_scrutability(model, tokenizer, " It was", template_text=f"{review}{{prompt}}", references=False)
    assert plain.measures["nll_in_template"].human is None


def test_the_judge_measures_in_its_own_tokens_and_the_gap_is_relative_to_human_prompts(
    model: Any, tokenizer: Any
) -> None:
    judge = embedded.load_model()
    same = measure_scrutability(model, tokenizer, TEXT, perplexity_model=judge).measures
    assert same["judge_nll"].value == pytest.approx(same["nll"].value, rel=1e-5)
    assert same["judge_gap"].value == pytest.approx(0, abs=1e-6)
    assert same["judge_nll"].human == pytest.approx(same["nll"].human, rel=1e-5)
    with torch.no_grad():  # a judge that has unlearnt what follows what
        for block in judge.transformer.h:
            block.attn.c_proj.weight.zero_()
    other = measure_scrutability(model, tokenizer, TEXT, perplexity_model=judge).measures
    assert other["judge_nll"].value > same["judge_nll"].value


def test_text_that_only_the_task_model_finds_likely_has_a_negative_gap(model: Any, tokenizer: Any) -> None:
    """The task model is trained on one gibberish prompt; the untouched model judges."""
    prompt = " verdict knows classic viewing magazine students"
    task = embedded.load_model()
    ids = torch.tensor([tokenizer.encode(prompt)])
    optimizer = torch.optim.Adam(task.parameters(), lr=1e-3)
    for _ in range(15):
        optimizer.zero_grad()
        task(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    measures = measure_scrutability(task, tokenizer, prompt, perplexity_model=model).measures
    assert measures["nll"].value < measures["judge_nll"].value - 1
    assert measures["judge_gap"].value < -0.3


def test_hooks_for_grammar_similarity_and_ratings(model: Any, tokenizer: Any) -> None:
    class Letters:
        def encode(self, texts: list[str]) -> list[list[float]]:
            return [[float(text.lower().count(letter)) for letter in "abcdefgh"] for text in texts]

    options = {"task_description": TEXT.upper(), "raters": [lambda text: 2.0, lambda text: len(text.split())]}
    found = values(model, tokenizer, TEXT, encoder=Letters(), grammar_judge=lambda text: text.count("?"), **options)
    assert found["task_similarity"] == pytest.approx(1)
    assert found["grammar"] == 1
    assert found["rating"] == 4.5
    called = values(model, tokenizer, TEXT, encoder=Letters().encode, task_description="zzz")
    assert called["task_similarity"] == 0


def test_labels_and_training_texts_are_measured(model: Any, tokenizer: Any) -> None:
    training = ["She asked: is this film review positive or negative?"]
    found = values(model, tokenizer, TEXT, label_words=(" positive", " great"), training_texts=training)
    assert (found["label_leak"], found["longest_copied"], found["copied_share"]) == (1, 7, 1)


def test_the_user_s_tokenizer_is_left_alone(model: Any, tokenizer: Any) -> None:
    before = (tokenizer.padding_side, tokenizer.pad_token, len(tokenizer))
    measure_scrutability(model, tokenizer, TEXT, template_text=" It was")
    assert (tokenizer.padding_side, tokenizer.pad_token, len(tokenizer)) == before


def test_half_given_arguments_are_refused(model: Any, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="nothing to judge"):
        measure_scrutability(model, tokenizer, None)
    with pytest.raises(ValueError, match="belong together"):
        measure_scrutability(model, tokenizer, TEXT, task_description="sentiment")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": [TEXT]}, "`text` is a list and must be one text, a string; measure each of several by itself"),
        ({"ids": TEXT}, "`ids='Is this film.*'` must be one list of token ids; it is made by `tokenizer.encode"),
        ({"ids": [[5, 6, 7]]}, r"`ids=\[\[5, 6, 7\]\]` must be one list of token ids"),
        ({"label_words": "good"}, r"`label_words='good'` is one text and .*; write `label_words=\['good'\]`"),
        ({"training_texts": "A film."}, r"write `training_texts=\['A film.'\]`"),
        ({"tokenizer": "gpt2"}, "`tokenizer` is a str and must be the model's own tokenizer; load it with"),
        ({"model": "gpt2"}, "`model` is a str, which does not predict a next token; pass a causal language model"),
    ],
)
def test_slips_are_named(model: Any, tokenizer: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure_scrutability(**{"text": TEXT, "model": model, "tokenizer": tokenizer, **given})


def test_an_empty_prompt_is_called_empty(model: Any, tokenizer: Any) -> None:
    flags = {flag.name: flag.words for flag in measure_scrutability(model, tokenizer, "").flags}
    assert flags["too_short"] == "the prompt is empty"
