"""The judge of readability: its readings by hand, its fit, the choice of a judge, and verdicts for what it knows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from peft_interp import embedded, measure_scrutability
from peft_interp.metrics.readability_judge import (
    FEATURES,
    JudgeReading,
    ReadabilityJudge,
    as_features,
    find_judge,
    load_fit,
    read_texts,
)
from peft_interp.metrics.word_frequency import log_rate, text_log_rate

TEXT, SALAD = "Is this film review positive or negative?", "whose between am were shall they on"
GERMAN = "Ist diese Filmkritik eher positiv oder negativ?"


@pytest.fixture(scope="module")
def judge() -> ReadabilityJudge:
    found = find_judge("embedded")
    assert found is not None
    return found


def test_readings_are_those_of_the_text_alone(judge: ReadabilityJudge) -> None:
    """One by one, without padding, by transformers' own loss and states."""
    texts = [TEXT, SALAD, "A film", " Sit down.  "]
    for text, reading in zip(texts, judge.read(texts), strict=True):
        start = judge.tokenizer.convert_tokens_to_ids(judge.fit.start)
        ids = torch.tensor([[start, *judge.tokenizer.encode(text.strip(), add_special_tokens=False)]])
        with torch.no_grad():
            output = judge.model(ids, output_hidden_states=True)
        nlls = -output.logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None]).squeeze(1)
        assert reading.nll == pytest.approx(nlls[1:].mean().item(), abs=1e-4)
        assert reading.log_rate == pytest.approx(text_log_rate(text) / len(nlls))
        assert reading.inverse_length == 1 / len(nlls)
        state = output.hidden_states[judge.fit.layer][0, 1:].mean(0)
        expected = float(state @ torch.tensor(judge.fit.probe)) + judge.fit.probe_bias
        assert reading.grammar == pytest.approx(expected, abs=1e-3)
        assert reading.slor == -reading.nll - reading.log_rate
        assert reading.score == judge.fit.score(as_features(reading))


def test_the_score_is_the_sigmoid_of_the_weighted_features() -> None:
    fit = replace(load_fit("embedded"), intercept=0.5, coefficients=dict.fromkeys(FEATURES, 0.0) | {"nll": -2.0})
    features = dict.fromkeys(FEATURES, 1.0)
    assert fit.score(features) == pytest.approx(1 / (1 + math.exp(1.5)))
    assert math.isnan(fit.score(features | {"nll": math.nan}))
    assert fit.score(features | {"nll": 1e6}) < 1e-300
    assert fit.score(features | {"nll": -1e6}) == 1


@pytest.mark.parametrize("name", ["embedded", "smollm2"])
def test_what_is_published_says_how_far_it_agrees_with_people(name: str) -> None:
    fit = load_fit(name)
    assert set(fit.coefficients) == set(FEATURES)
    assert fit.coefficients["nll"] <= 0 <= fit.coefficients["grammar"]
    for figure in ("acceptability_spearman", "naturalness_spearman", "cola_auc"):
        value, low, high = fit.figures[figure]
        assert -1 <= low <= value <= high <= 1
    assert 0 < fit.threshold < 1
    assert "fit_judge" in fit.provenance["script"]


def test_a_text_of_one_token_or_none_has_no_score(judge: ReadabilityJudge) -> None:
    nothing, one = judge.read(["", "film"])
    assert math.isnan(nothing.score)
    assert math.isnan(one.score)
    assert judge.read([]) == []


def test_without_a_start_token_the_first_token_is_predicted_by_nothing(judge: ReadabilityJudge) -> None:
    nlls, states = read_texts(judge.model, judge.tokenizer, [TEXT], "", (1, 2))[0]
    assert nlls[0] == 0
    assert states.shape == (2, judge.model.config.hidden_size)


def test_the_choice_of_a_judge(monkeypatch: pytest.MonkeyPatch, judge: ReadabilityJudge) -> None:
    assert find_judge("task") is None
    assert find_judge(None) is None
    assert find_judge("auto") is None  # what the tests' environment says
    monkeypatch.setenv("PEFT_INTERP_JUDGE", "embedded")
    assert find_judge("auto") is judge
    assert find_judge(judge) is judge
    monkeypatch.delenv("PEFT_INTERP_JUDGE")
    monkeypatch.setattr("peft_interp.metrics.readability_judge.has_smollm2", lambda: False)
    assert find_judge("auto") is judge
    with pytest.raises(ValueError, match=r"`judge='gpt2'` has no fit; use one of embedded, smollm2, 'auto', 'task'"):
        find_judge("gpt2")


def _model(**config: int) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(**{"n_layer": 4, "n_embd": 256, "n_head": 2, "vocab_size": 6144, **config}))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"n_embd": 64}, r"hidden states of 256 dimensions, and the judge's have 64; fit the judge anew"),
        ({"n_layer": 2}, r"reads layer 3, and the judge has layers 0 to 2; fit the judge anew"),
        ({"vocab_size": 100}, r"has ids up to 6143, and the judge 100 tokens; pass the tokenizer that belongs"),
    ],
)
def test_a_fit_for_another_model_is_refused(judge: ReadabilityJudge, config: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReadabilityJudge(_model(**config), judge.tokenizer, judge.fit)


def test_another_tokenizer_is_refused(judge: ReadabilityJudge) -> None:
    """Also one that has the start token and no id too many, which would give wrong scores without a word."""
    other = _retrained(judge.tokenizer, ["a film", "a book"] * 50, judge.fit.start)
    with pytest.raises(ValueError, match=r"as other tokens than the fit of 'embedded' was made with; pass the tokeni"):
        ReadabilityJudge(judge.model, other, judge.fit)
    assert ReadabilityJudge(judge.model, other, replace(judge.fit, sample_ids=())).fit.judge == "embedded"
    without = replace(judge.fit, start="<start>")
    with pytest.raises(ValueError, match=r"puts '<start>' in front of every text, which the tokenizer does not have"):
        ReadabilityJudge(judge.model, judge.tokenizer, without)


def _retrained(tokenizer: Any, texts: list[str], start: str) -> Any:
    other = tokenizer.train_new_from_iterator(texts, 300)
    other.add_special_tokens({"bos_token": start})
    return other


def test_verdicts_are_the_judges(judge: ReadabilityJudge) -> None:
    model, tokenizer = embedded.load_model(), embedded.load_tokenizer()
    good, salad = (measure_scrutability(model, tokenizer, text, judge=judge) for text in (TEXT, SALAD))
    assert (good.verdict, salad.verdict) == ("readable", "unreadable")
    assert good.judge == "embedded"
    assert good.agreement == load_fit("embedded").figures["acceptability_spearman"][0]
    assert good.score == judge.scores([TEXT])[0]
    assert good.measures["slor"].value == judge.read([TEXT])[0].slor
    assert "grammaticality" in good.measures
    by_task = measure_scrutability(model, tokenizer, TEXT, judge="task")
    assert by_task.judge == "task model"
    assert by_task.agreement is None
    assert "slor" not in by_task.measures


def test_another_language_is_not_judged_and_a_flag_decides_alone(judge: ReadabilityJudge) -> None:
    model, tokenizer = embedded.load_model(), embedded.load_tokenizer()
    foreign = measure_scrutability(model, tokenizer, GERMAN, judge=judge)
    assert foreign.verdict == "unknown"
    assert math.isnan(foreign.score)
    assert not foreign.readable
    assert measure_scrutability(model, tokenizer, "film", judge=judge).verdict == "unreadable"  # flagged as too short
    again = measure_scrutability(model, tokenizer, "film film film film film film", judge=judge)
    assert again.verdict == "unreadable"


def test_rates_of_words() -> None:
    assert log_rate("the") > log_rate("film") > log_rate("zyzzyva") < 0
    assert log_rate("The") == log_rate("the")
    assert log_rate("don’t") == log_rate("don't")
    assert text_log_rate("the film") == pytest.approx(log_rate("the") + log_rate("film"))
    assert text_log_rate("") == 0
    assert text_log_rate("42 .") == pytest.approx(log_rate("42") + log_rate("."))


def test_slor_does_not_hold_rare_words_against_a_text() -> None:
    assert JudgeReading(nll=8, log_rate=-9, inverse_length=0.1, grammar=0, repeats=0).slor == 1
