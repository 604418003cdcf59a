"""Whether a person can read a prompt's text: every measure beside its reference levels, patterns that fool them, a score.

Names and directions in `Scrutability.measures` (a share runs from 0 to 1; those in brackets appear when asked for):

| name | what | better |
|---|---|---|
| `nll` | mean NLL of tokens 2..L under the task model, nats per token (log-perplexity of arXiv 2504.02144) | lower |
| `perplexity` | exp(`nll`) | lower |
| `nll_position` | `nll` between human-written prompts (0) and the same shuffled (1) at this length | lower |
| `nll_per_character` | NLL in nats per character: comparable between tokenizers | lower |
| `worst_nll` | NLL of the least likely token, nats | lower |
| (`nll_in_template`) | NLL per token of the prompt in its place: given what stands in front of it there | lower |
| (`following_nll`) | NLL per token of the template's text after the prompt, given the prompt | lower |
| (`judge_nll`) | as `nll`, under another language model, `perplexity_model`, and its tokenizer | lower |
| (`judge_gap`) | task model's nats per character less the other's, each less its own human median; far below 0: only the task model finds the text likely, a sign of gaming | higher |
| `repetition` | share of tokens that repeat an earlier one | lower |
| `repetition_penalty` | sum of (count - 1)^1.5 by length (FLRT) | lower |
| `distinct_1`, `distinct_2` | different tokens, and pairs of tokens, by all | higher |
| `special_share`, `blank_share`, `punctuation_share` | share of tokens that are special, show nothing, are marks only | lower |
| `dictionary_share` | share of words in an English dictionary with a frequency that is not negligible | higher |
| `whole_word_share` | share of letter tokens that are whole words | higher |
| `ascii_share` | share of ASCII characters; says which alphabet, not how readable | higher |
| (`longest_copied`, `copied_share`) | longest run of words from the training texts; share of words in runs of five and more | lower |
| (`label_leak`) | how many label words stand in the text | lower |
| (`grammar`, `task_similarity`, `rating`) | a grammar judge's, an encoder's (cosine with the task's description), people's or LLMs' verdict | higher |

Perplexity is a proxy: repeats, special tokens, blanks and boilerplate score well on it, so each is looked for by itself
(`peft_interp.metrics.flags`).
"""  # noqa: E501

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import torch

import peft_interp.metrics.text_metrics as text_metrics
from peft_interp.inference.model_lock import locked
from peft_interp.metrics.flags import find_flags, language
from peft_interp.metrics.likelihood import language_model, mean_nll, token_nlls
from peft_interp.metrics.references import Levels, levels_after, reference_levels
from peft_interp.metrics.results import Flag, Measure, Scrutability
from peft_interp.metrics.token_metrics import BETTER, measure_tokens, special_ids
from peft_interp.text.tokenization import as_ids, check_text, check_texts, check_tokenizer, leading_ids, token_texts

COEFFICIENTS = Path(__file__).parent / "data" / "readability.json"
FAULTS = ("nll_position", "unknown_words", "repetition")
POSITION_RANGE = (-0.5, 2.0)


@dataclass(frozen=True)
class Calibration:
    """The fitted score.

    Attributes:
        intercept: log-odds of a text without a fault.
        coefficients: for each of `FAULTS`, >= 0.
        threshold: the score, 0 to 1, from which on a text counts as readable.
        provenance: script, data, date and the rule for the threshold.
    """

    intercept: float
    coefficients: dict[str, float]
    threshold: float
    provenance: dict[str, Any]

    def score(self, faults: Mapping[str, float]) -> float:
        """The composite, 0 (unreadable) to 1; NaN where a fault is NaN."""
        z = self.intercept - sum(self.coefficients[name] * faults[name] for name in FAULTS)
        return 1 / (1 + math.exp(-z))


@cache
def calibration() -> Calibration:
    """The published coefficients."""
    return Calibration(**json.loads(COEFFICIENTS.read_text(encoding="utf-8")))


def faults_of(measures: Mapping[str, float], english: bool = True) -> dict[str, float]:
    """The composite's inputs.

    Args:
        measures: `nll_position`, `dictionary_share` and `repetition`.
        english: False where the words are of another language and cannot be looked up.

    Returns:
        By `FAULTS`; `nll_position` is NaN where it could not be measured.
    """
    known, position = measures["dictionary_share"], measures["nll_position"]
    low, high = POSITION_RANGE
    return {
        "nll_position": position if math.isnan(position) else min(max(position, low), high),
        "unknown_words": 1 - known if english and not math.isnan(known) else 0.0,
        "repetition": measures["repetition"],
    }


@locked
def measure_scrutability(
    model: Any,
    tokenizer: Any,
    text: str | None = None,
    ids: Sequence[int] | None = None,
    perplexity_model: Any = None,
    perplexity_tokenizer: Any = None,
    template_text: str | None = None,
    label_words: Sequence[str] = (),
    training_texts: Sequence[str] = (),
    task_description: str | None = None,
    encoder: Any = None,
    grammar_judge: Callable[[str], float] | None = None,
    raters: Sequence[Callable[[str], float]] = (),
    references: bool = True,
) -> Scrutability:
    """Judge a prompt's text.

    After the first call for a model and a length, which measures the reference levels, this costs one pass of the
    model over the prompt; and one over 200 human-written prompts in its place, where the template has text in front.

    Args:
        model: the task's causal LM, or an adapter on it (then its base model judges, without the prompt in front).
        tokenizer: its tokenizer.
        text: the prompt; may be None where `ids` are given.
        ids: the prompt's own token ids, judged as they are, with their own text; the text is tokenised otherwise.
        perplexity_model: another causal LM, for `judge_nll` and `judge_gap`.
        perplexity_tokenizer: its tokenizer; the same as the model's by default.
        template_text: an example of the text around the prompt, "{prompt} The film was long. It was"; without
            "{prompt}" it stands after the prompt.
        label_words: words that the task answers with.
        training_texts: texts that the prompt should not be copied from.
        task_description: what the prompt is for, in words; compared by the `encoder`.
        encoder: a callable, or an object with `encode`, from a list of texts to one vector for each.
        grammar_judge: from a text to a number, higher is better.
        raters: people's or LLMs' ratings, each from a text to a number, higher is better; their mean is kept.
        references: measure reference levels. Without them there are no percentiles, the score is NaN, and no text is
            called readable.

    Returns:
        Measures by name, flags, the score and the verdict. A prompt of fewer than two tokens has NaN for its NLL and
        score.

    Raises:
        ValueError: neither text nor ids, something else in the place of a text, ids, a list of texts or a tokenizer, no
            causal LM, or a task description without an encoder or the reverse.
    """
    check_texts("label_words", label_words)
    check_texts("training_texts", training_texts)
    text, ids = _text_and_ids(text, ids, tokenizer)
    base = language_model(model)
    levels = reference_levels(base, tokenizer, len(ids)) if references and len(ids) > 1 else None
    measures = _of_tokens(base, tokenizer, text, ids, levels)
    other = perplexity_tokenizer or tokenizer
    measures |= _under_another(text, perplexity_model, other, measures["nll_per_character"], levels)
    measures |= _in_template(base, tokenizer, ids, template_text, levels)
    measures |= _of_text(text, label_words, training_texts)
    measures |= _by_others(text, task_description, encoder, grammar_judge, raters)
    special = sum(i in special_ids(tokenizer) for i in ids)
    flags = find_flags(text, token_texts(tokenizer, ids), special, label_words, training_texts)
    return _verdict(text, measures, flags)


@locked
def scrutability_scores(model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]]) -> list[float]:
    """The scores that `measure_scrutability` gives to many prompts, from one pass of the model over all of them.

    Args:
        model: as for `measure_scrutability`.
        tokenizer: its tokenizer.
        prompts: token ids of each.

    Returns:
        One number for each prompt, 0 (unreadable) to 1; NaN for fewer than two tokens, and under a model to which
        shuffled words are as likely as people's prompts.

    Raises:
        ValueError: no causal LM.
    """
    base = language_model(model)
    scores = []
    for ids, nlls in zip(prompts, token_nlls(base, prompts, leading_ids(tokenizer)), strict=True):
        text = str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))
        values = measure_tokens(tokenizer, ids, nlls, text)
        known = reference_levels(base, tokenizer, len(ids)).nll_position(values["nll"]) if len(ids) > 1 else math.nan
        scores.append(_score({**values, "nll_position": known}, language(text) is None))
    return scores


def _text_and_ids(text: str | None, ids: Sequence[int] | None, tokenizer: Any) -> tuple[str, list[int]]:
    """The prompt both ways; where text and ids do not agree, the ids count."""
    check_text("text", text)
    check_tokenizer(tokenizer)
    if text is None and ids is None:
        raise ValueError("`text=None` leaves nothing to judge; pass the prompt's text or its `ids`.")
    own = [] if text is None else tokenizer.encode(text, add_special_tokens=False)
    kept = own if ids is None else as_ids(ids, "ids").tolist()
    if text is not None and kept == own:
        return text, kept
    return str(tokenizer.decode(kept, clean_up_tokenization_spaces=False)), kept


def _verdict(text: str, measures: dict[str, Measure], flags: tuple[Flag, ...]) -> Scrutability:
    english = all(flag.name != "language" for flag in flags)
    score = _score({name: measure.value for name, measure in measures.items()}, english)
    readable = score >= calibration().threshold and not any(flag.unreadable for flag in flags)
    return Scrutability(text=text, measures=measures, flags=flags, score=score, readable=readable)


def _score(values: Mapping[str, float], english: bool) -> float:
    return calibration().score(faults_of(values, english))


def plain(name: str, value: float) -> Measure:
    """A measure without reference levels."""
    return Measure(value=value, better=BETTER[name])


def _of_tokens(base: Any, tokenizer: Any, text: str, ids: list[int], levels: Levels | None) -> dict[str, Measure]:
    nlls = token_nlls(base, [ids], leading_ids(tokenizer))[0]
    values = measure_tokens(tokenizer, ids, nlls, text)
    values["nll_position"] = levels.nll_position(values["nll"]) if levels else math.nan
    return {name: levels.measure(name, value) if levels else plain(name, value) for name, value in values.items()}


def _under_another(text: str, model: Any, tokenizer: Any, task: Measure, levels: Levels | None) -> dict[str, Measure]:
    """`judge_nll` and `judge_gap` under the perplexity model."""
    if model is None:
        return {}
    base, ids = language_model(model), tokenizer.encode(text, add_special_tokens=False)
    values = measure_tokens(tokenizer, ids, token_nlls(base, [ids], leading_ids(tokenizer))[0], text)
    gap = task.value - values["nll_per_character"]
    if levels is None or len(ids) < 2:
        return {"judge_nll": plain("judge_nll", values["nll"]), "judge_gap": plain("judge_gap", gap)}
    known = reference_levels(base, tokenizer, len(ids))
    usual, nll = known.medians("nll_per_character")["human"], known.measure("nll", values["nll"])
    if usual is None or task.human is None:
        return {"judge_nll": nll, "judge_gap": plain("judge_gap", gap)}
    return {"judge_nll": nll, "judge_gap": Measure(gap - (task.human - usual), human=0.0, better=BETTER["judge_gap"])}


def _in_template(
    model: Any, tokenizer: Any, ids: list[int], template_text: str | None, levels: Levels | None
) -> dict[str, Measure]:
    if template_text is None:
        return {}
    before, _, after = template_text.rpartition("{prompt}") if "{prompt}" in template_text else ("", "", template_text)
    front = tokenizer.encode(before, add_special_tokens=False) if before else []
    following = tokenizer.encode(after, add_special_tokens=False) if after else []
    nlls = token_nlls(model, [[*front, *ids, *following]], leading_ids(tokenizer))[0]  # token i + 1's at i
    start, end = max(len(front) - 1, 0), len(front) + len(ids) - 1
    name, nll = "nll_in_template", mean_nll(nlls[start:end])
    if levels is None:
        found = {name: plain(name, nll)}
    elif front:
        found = {name: levels_after(model, tokenizer, before, len(ids)).measure(name, nll)}
    else:
        found = {name: levels.measure("nll", nll)}  # the same number
    if following:
        found["following_nll"] = plain("following_nll", mean_nll(nlls[max(end, 0) :]))
    return found


def _of_text(text: str, label_words: Sequence[str], training_texts: Sequence[str]) -> dict[str, Measure]:
    found: dict[str, float] = {}
    if label_words:
        found["label_leak"] = len(text_metrics.leaked_labels(text, label_words))
    if training_texts:
        found["longest_copied"] = text_metrics.longest_copied(text, training_texts)
        found["copied_share"] = text_metrics.copied_share(text, training_texts)
    return {name: plain(name, float(value)) for name, value in found.items()}


def _by_others(
    text: str,
    task_description: str | None,
    encoder: Any,
    grammar_judge: Callable[[str], float] | None,
    raters: Sequence[Callable[[str], float]],
) -> dict[str, Measure]:
    found: dict[str, float] = {}
    if (encoder is None) != (task_description is None):
        raise ValueError("`encoder` and `task_description` belong together: pass both or neither.")
    if encoder is not None and task_description is not None:
        encode = getattr(encoder, "encode", encoder)
        vectors = torch.stack(
            [torch.as_tensor(vector).float().flatten() for vector in encode([text, task_description])]
        )
        found["task_similarity"] = torch.cosine_similarity(vectors[0], vectors[1], dim=0).item()
    if grammar_judge is not None:
        found["grammar"] = float(grammar_judge(text))
    if raters:
        found["rating"] = mean(float(rater(text)) for rater in raters)
    return {name: plain(name, value) for name, value in found.items()}
