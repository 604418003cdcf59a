"""Whether a prompt names its task, with an encoder made of shared words, so that no wheel is needed."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import get_peft_model

import peft_interp.metrics as metrics
from peft_interp import InterpPromptConfig, PromptReport, embedded, measure_task_naming, report_prompt, report_text
from peft_interp.metrics.reading import read_text
from peft_interp.metrics.references import human_prompts
from peft_interp.metrics.task_naming import measure_task_namings, naming_limits
from peft_interp.report.verdicts import named

DESCRIPTION = "Say whether a film review is positive or negative."
ABOUT, ELSEWHERE = "Is this film review positive or negative?", "I like you as a babysitter."


def shared_words(texts: Sequence[str]) -> torch.Tensor:
    """Vectors whose cosine grows with the words that two texts share."""
    vectors = torch.full((len(texts), 512), 0.01)
    for row, text in zip(vectors, texts, strict=True):
        for word in re.findall(r"\w+", text.lower()):
            row[int(hashlib.sha256(word.encode()).hexdigest(), 16) % 512] += 1
    return vectors


def test_it_tells_the_task_from_something_else() -> None:
    named, other = measure_task_namings([ABOUT, ELSEWHERE], DESCRIPTION, encoder=shared_words)
    assert (named.verdict, other.verdict) == ("named", "other")
    assert named.score > naming_limits().named > naming_limits().other > other.score
    assert "names its task" in named.words
    assert "about something else" in other.words
    similarity = named.similarities["description"]
    assert similarity.value > 0.5 > (similarity.human or 0)
    assert similarity.percentile is not None
    assert similarity.percentile > 95


def test_the_similarity_is_the_cosine_and_the_score_its_place_among_other_prompts() -> None:
    found = measure_task_naming(ABOUT, DESCRIPTION, encoder=shared_words)
    vectors = torch.nn.functional.normalize(shared_words([ABOUT, DESCRIPTION, *human_prompts()]), dim=-1)
    cosines = vectors @ vectors[1]
    assert found.similarities["description"].value == pytest.approx(cosines[0].item(), abs=1e-5)
    others = cosines[2:]
    expected = (cosines[0] - others.mean()) / others.std(correction=0)
    assert found.score == pytest.approx(expected.item(), rel=1e-3)


def test_what_of_the_description_is_not_said_is_told_word_by_word() -> None:
    whole, half, nothing = measure_task_namings(
        [ABOUT, "Say whether a film review is long.", "Say whether it is."], DESCRIPTION, encoder=shared_words
    )
    assert (whole.said, whole.unsaid) == (pytest.approx(1, abs=0.01), ())
    assert half.said == pytest.approx(0.5, abs=0.1)  # of film, review, positive, negative
    assert half.unsaid == ("positive", "negative")
    assert half.verdict == "named"
    assert 'it says nothing like "positive", "negative"' in half.words
    assert "says nothing" not in whole.words
    assert nothing.said < 0.2  # all of its words are such as every description has
    assert nothing.unsaid == ("film", "review", "positive", "negative")
    without = measure_task_naming(ABOUT, label_words=["terrible", "great"], encoder=shared_words)
    assert math.isnan(without.said)
    assert not without.unsaid


def test_a_word_is_said_by_one_that_is_like_it() -> None:
    meanings = {"film": 0, "movie": 0, "good": 1, "positive": 1, "negative": 2}

    def encode(texts: Sequence[str]) -> torch.Tensor:
        vectors = torch.full((len(texts), 8), 0.01)
        for row, text in zip(vectors, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()):
                row[meanings.get(word, 7)] += 1
        return vectors

    found = measure_task_naming("Is the movie good?", "Say whether a film is positive or negative.", encoder=encode)
    assert found.unsaid == ("negative",)
    assert found.said == pytest.approx(2 / 3, abs=0.05)


def test_several_anchors_are_weighted() -> None:
    parts = {"task_description": DESCRIPTION, "label_words": [" terrible", " great"], "examples": ["A great film."]}
    alone = {
        name: measure_task_naming(ABOUT, encoder=shared_words, **{name: value}).score for name, value in parts.items()
    }
    together = measure_task_naming(ABOUT, encoder=shared_words, **parts)
    weights = naming_limits().weights
    by_argument = dict(zip(parts, ("description", "label_words", "examples"), strict=True))
    expected = sum(weights[by_argument[name]] * score for name, score in alone.items()) / sum(weights.values())
    assert together.score == pytest.approx(expected, rel=1e-4)
    assert list(together.similarities) == ["description", "label_words", "examples"]


def test_without_a_description_little_is_said() -> None:
    found = measure_task_naming(ELSEWHERE, label_words=["terrible", "great"], encoder=shared_words)
    assert found.verdict == "unclear"
    assert found.score < naming_limits().other


def test_coherence_is_high_for_what_is_said_twice_and_unknown_for_a_word() -> None:
    texts = ["review the film review the film", "review film apples yesterday", "film"]
    twice, mixed, short = (one.coherence for one in measure_task_namings(texts, DESCRIPTION, encoder=shared_words))
    assert twice.value == pytest.approx(1)
    assert mixed.value < 0.1
    assert twice.percentile == 100
    assert math.isnan(short.value)
    assert short.human is not None


@pytest.mark.parametrize("text", ["", "?!", " \n"])
def test_a_text_without_words_cannot_be_judged(text: str) -> None:
    found = measure_task_naming(text, DESCRIPTION, encoder=shared_words)
    assert found.verdict == "unknown"
    assert math.isnan(found.score)
    assert "cannot be told" in found.words


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="pass `task_description`, `label_words` or `examples`"):
        measure_task_naming(ABOUT, encoder=shared_words)
    with pytest.raises(ValueError, match="nothing to compare"):
        measure_task_naming(ABOUT, " ", (), [""], encoder=shared_words)
    with pytest.raises(ValueError, match="`label_words='great'` is one text"):
        measure_task_naming(ABOUT, label_words="great", encoder=shared_words)
    with pytest.raises(ValueError, match="must be one text"):
        measure_task_naming([ABOUT], DESCRIPTION, encoder=shared_words)  # type: ignore[arg-type]


def test_a_report_says_what_is_readable_and_about_something_else() -> None:
    model, tokenizer, task = embedded.load_model(), embedded.load_tokenizer(), embedded.TASKS["sentiment"]
    asked = {"task_description": DESCRIPTION, "encoder": shared_words}
    other, good = (
        report_text(model, tokenizer, text, verbalizer=task, task_naming=asked, scrutability={"judge": "embedded"})
        for text in (ELSEWHERE, ABOUT)
    )
    assert (other.verdict("readable").answer, other.verdict("named").answer) == ("yes", "no")
    assert other.verdict("named").words.startswith("readable, but it is about something else (")
    assert "readable, but it is about something else" in other.to_markdown()
    assert (good.verdict("named").answer, good.task_naming.verdict) == ("yes", "named")
    assert list(good.task_naming.similarities) == ["description", "label_words"]
    assert PromptReport.from_dict(other.to_dict()).task_naming.score == other.task_naming.score
    assert report_text(model, tokenizer, ABOUT, verbalizer=task).verdict("named") is None


def test_a_report_of_vectors_says_it_of_their_nearest_tokens() -> None:
    start = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": ELSEWHERE, "init_text_fit": "warn"}
    config = InterpPromptConfig(task_type="CAUSAL_LM", tokenizer_name_or_path=embedded.MODEL_PATH, **start)
    words, vectors = (
        get_peft_model(embedded.load_model(), one) for one in (config, replace(config, projection_metric="none"))
    )
    with torch.no_grad():
        vectors.prompt_encoder["default"].latent += 1e-3
    asked: dict[str, Any] = {"task_naming": {"task_description": DESCRIPTION, "encoder": shared_words}}
    for model, said in ((words, "it is about"), (vectors, "its nearest tokens: it is about")):
        report = report_prompt(model, embedded.load_tokenizer(), **asked, scrutability={"judge": "task"})
        assert report.verdict("named").answer == "no"
        assert report.verdict("named").words.replace("readable, but ", "").startswith(said)


@pytest.mark.parametrize(
    ("verdict", "answer"), [("named", "yes"), ("unclear", "partly"), ("other", "no"), ("unknown", "unknown")]
)
def test_the_answer_is_by_the_verdict(verdict: str, answer: str) -> None:
    found = replace(measure_task_naming(ABOUT, DESCRIPTION, encoder=shared_words), verdict=verdict)
    reading = read_text(embedded.load_tokenizer(), ABOUT, "start")
    assert named(reading, None, found) == (answer, found.words)
    assert named(reading, None, None) is None


@pytest.mark.usefixtures("evaluate_caches")
def test_as_a_module_of_evaluate() -> None:
    module = metrics.load("task_naming")
    found = module.compute(data=[ABOUT, ELSEWHERE], task_description=DESCRIPTION, encoder=shared_words)
    single = [measure_task_naming(text, DESCRIPTION, encoder=shared_words) for text in (ABOUT, ELSEWHERE)]
    assert found["named"] == 0.5
    assert found["score"] == pytest.approx(sum(one.score for one in single) / 2)
    assert [record["verdict"] for record in found["task_naming"]] == ["named", "other"]
    with pytest.raises(ValueError, match="is no keyword of these measures"):
        module.compute(data=[ABOUT], description=DESCRIPTION)
