"""`compare_prompts`: adapters and texts on the same rows, with paired differences and their intervals."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from peft import PeftModel
from rich.console import RenderableType
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_interp.inference.model_lock import locked
from peft_interp.inference.models import AnyModel, base_model_of
from peft_interp.inference.progress import progress_bar
from peft_interp.metrics.choices import label_ids_of
from peft_interp.metrics.differentials import LabelIds, TaskTotals
from peft_interp.metrics.label_scores import (
    calibrate,
    calibration_rows,
    check_held_out,
    stored_bias,
    warn_of_shared_rows,
)
from peft_interp.metrics.reading import read_prompt, read_text
from peft_interp.metrics.results import PromptReading
from peft_interp.metrics.scrutability import measure_scrutability
from peft_interp.metrics.task_outcomes import Contender, adapter_contender, common_targets, text_contender
from peft_interp.metrics.uncertainty import CONFIDENCE, Estimate
from peft_interp.report.build import is_causal
from peft_interp.report.compared import NOTHING, ComparedPrompt, ComparisonData, PromptDifference
from peft_interp.report.prompt_report import Shown
from peft_interp.report.provenance import describe_measurement
from peft_interp.report.record import shortened
from peft_interp.report.render_comparison import (
    comparison_html,
    comparison_in_notebook,
    comparison_markdown,
    comparison_rich,
)
from peft_interp.text.label_bias import LabelBias
from peft_interp.text.placement import START, placement_named
from peft_interp.text.rows import Rows
from peft_interp.text.verbalizer import Verbalizer

Candidate = str | PeftModel | tuple[PeftModel, str]
_Shared = tuple[Any, Any, LabelIds | None, int]
_NAME_LETTERS = 48


class PromptComparison(Shown, ComparisonData):
    """Several prompts on the same rows, and the ways to show and store them; see `ComparisonData` for its fields."""

    FILE_NAME = "comparison"

    def to_html(self) -> str:
        """One page that needs nothing else: no script, no network."""
        return comparison_html(self)

    def to_markdown(self) -> str:
        """Two tables."""
        return comparison_markdown(self)

    def __rich__(self) -> RenderableType:
        return comparison_rich(self)

    def _repr_html_(self) -> str:
        """For notebooks: conclusion and scores, and the page folded below."""
        return comparison_in_notebook(self)


@locked
def compare_prompts(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Candidate] | Mapping[str, Candidate],
    rows: Rows,
    verbalizer: Verbalizer | None = None,
    label_token_ids: LabelIds | None = None,
    position: str | None = None,
    without: bool = True,
    batch_size: int = 32,
    context: Mapping[str, Any] | None = None,
    progress: bool = True,
    training_rows: Rows | None = None,
) -> PromptComparison:
    """Hold prompts against each other on the same rows: which is better, and is that more than chance.

    Args:
        model: the base model, under which texts are read; of an adapter, its base model is asked.
        tokenizer: its tokenizer.
        prompts: texts, `PeftModel`s with a prompt adapter on the same base model (the active one counts) or
            (`PeftModel`, adapter name); as a list, or by the names that they shall have.
        rows: tokenised examples without a prompt, held out from training.
        verbalizer: names the label words, and says where texts stand.
        label_token_ids: the label words' ids, where there is no verbalizer.
        position: where texts stand, "start" or "end"; None: as the verbalizer has it, else "start".
        without: compare with no prompt as well.
        batch_size: rows at a time; it changes no result.
        context: what else the reader should know.
        progress: show a progress bar.
        training_rows: other rows than `rows`, on which the label prior of every prompt, and of none, is estimated where
            the verbalizer says which `calibration`. Without one, adapters act with the numbers kept with them.

    Returns:
        The comparison, best prompt first. Only labels that every prompt predicts count.

    Raises:
        ValueError: no prompts, names given twice, an adapter on another base model, or unusable rows.
    """
    base, place = base_model_of(model), position or (START.name if verbalizer is None else verbalizer.prompt_position)
    named = _named(prompts, base)
    if verbalizer is not None and label_token_ids is None:
        label_token_ids = label_ids_of(verbalizer, tokenizer)
    readings: dict[str, PromptReading | None] = {name: _read(one, tokenizer, place) for name, one in named.items()}
    known = _known_biases(base, tokenizer, named, rows, verbalizer, training_rows, without, batch_size)
    biases = {name: bias.values for name, bias in known.items()}
    shared: _Shared = (tokenizer, rows, label_token_ids, batch_size)
    contenders = {name: _contender(base, one, readings[name], shared) for name, one in named.items()}
    if without:
        readings[NOTHING] = None
        contenders[NOTHING] = text_contender(base, *shared, placement_named(place), "", [])
    totals, compared, skipped = _outcomes(contenders, biases, progress)
    found = [_compared(name, readings[name], totals[name], base, tokenizer, biases.get(name)) for name in contenders]
    found.sort(key=lambda prompt: (-prompt.accuracy.mean if prompt.accuracy else 0.0, prompt.loss.mean))
    names = [prompt.name for prompt in found]
    pairs = [_difference(first, second, totals) for first, second in combinations(names, 2)]
    task = "CAUSAL_LM" if is_causal(base) else None
    about = {**describe_measurement(base.name_or_path, task, rows, verbalizer), **(context or {})}
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(pairs))
    words = next((bias.words for bias in known.values()), ())
    return PromptComparison(tuple(found), tuple(pairs), compared, skipped, confidence, about, words)


def _outcomes(
    contenders: Mapping[str, Contender], biases: Mapping[str, Sequence[float]], progress: bool
) -> tuple[dict[str, TaskTotals], int, int]:
    """How the task goes with each prompt, on how many rows, and how many were left out.

    Raises:
        ValueError: no row that all of them answer.
    """
    targets = common_targets(list(contenders.values()))
    compared = sum(bool(places) for places in targets)
    if not compared:
        raise ValueError("no row has an answer that every one of the prompts predicts; compare fewer of them.")
    with progress_bar(len(contenders) * len(targets), "Comparing prompts", progress) as bar:
        totals = {name: contender.outcome(targets, bar, biases.get(name)) for name, contender in contenders.items()}
    return totals, compared, len(targets) - compared


def _known_biases(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    named: Mapping[str, Candidate],
    rows: Rows,
    verbalizer: Verbalizer | None,
    training_rows: Rows | None,
    without: bool,
    batch_size: int,
) -> dict[str, LabelBias]:
    """Each prompt's numbers by its name: estimated where the verbalizer says how, else those kept with adapters."""
    if verbalizer is None:
        return {}
    if verbalizer.calibration == "none":
        kept = {name: stored_bias(_model_of(one, base), verbalizer, _own(one)) for name, one in named.items()}
        known = {name: bias for name, bias in kept.items() if bias is not None}
        for bias in known.values():
            warn_of_shared_rows(bias, rows)
        if known and len(known) < len(named) + without:
            warnings.warn(
                f"{', '.join(map(repr, known))} acts with the numbers for the label words that are kept with it, the "
                "other prompts with none; for a comparison of like with like give `training_rows` and a verbalizer "
                f"with `calibration={next(iter(known.values())).calibration!r}`.",
                stacklevel=3,
            )
        return known
    given = calibration_rows(tokenizer, training_rows, verbalizer)
    check_held_out(given, rows)
    found = {}
    for name, one in {**named, **({NOTHING: ""} if without else {})}.items():
        model = _model_of(one, base)
        text = one if isinstance(one, str) else None
        asked = (verbalizer, text, _own(one), batch_size)
        found[name] = calibrate(model, tokenizer, training_rows, *asked, progress=False)
    return found


def _own(one: Candidate) -> str | None:
    """The adapter's name; None for the active one, and for a text."""
    return one[1] if isinstance(one, tuple) else None


def _named(prompts: Sequence[Candidate] | Mapping[str, Candidate], base: PreTrainedModel) -> dict[str, Candidate]:
    """The prompts by unique names, checked."""
    if isinstance(prompts, (str, PeftModel)) or not prompts:
        raise ValueError("`prompts` must be a list of texts and adapters, or a mapping from names to them.")
    given = list(prompts.items()) if isinstance(prompts, Mapping) else [(_name(one), one) for one in prompts]
    found: dict[str, Candidate] = {}
    for name, one in given:
        model = one[0] if isinstance(one, tuple) else one
        if not isinstance(model, (str, PeftModel)):
            raise ValueError(f"a prompt is a {type(model).__name__} and must be a text or a `PeftModel`.")
        if isinstance(model, PeftModel) and model.get_base_model() is not base:
            raise ValueError(
                f"the adapter {name!r} is on another base model than `model`; load both on one, since prompts are "
                "compared on the same model."
            )
        while name in found or name == NOTHING:
            name += "'"
        found[name] = one
    return found


def _name(one: Candidate) -> str:
    if isinstance(one, str):
        return shortened(one, _NAME_LETTERS)
    return one[1] if isinstance(one, tuple) else str(getattr(one, "active_adapter", one))


def _model_of(one: Candidate, base: PreTrainedModel) -> AnyModel:
    """What answers with the prompt: the adapter, or the base model for a text."""
    return base if isinstance(one, str) else one[0] if isinstance(one, tuple) else one


def _read(one: Candidate, tokenizer: PreTrainedTokenizerBase, place: str) -> PromptReading:
    if isinstance(one, str):
        return read_text(tokenizer, one, place)
    model, name = one if isinstance(one, tuple) else (one, None)
    return read_prompt(model, tokenizer, name, neighbours=1)


def _contender(base: PreTrainedModel, one: Candidate, reading: PromptReading | None, shared: _Shared) -> Contender:
    if isinstance(one, str):
        assert reading is not None
        return text_contender(base, *shared, reading.placement, reading.text, reading.ids)
    model, name = one if isinstance(one, tuple) else (one, None)
    return adapter_contender(model, *shared, name)


def _compared(
    name: str,
    reading: PromptReading | None,
    totals: TaskTotals,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    bias: tuple[float, ...] | None,
) -> ComparedPrompt:
    loss, accuracy = _known(totals.losses.estimate()), totals.hits.estimate((0.0, 1.0))
    if reading is None:
        return ComparedPrompt(name, NOTHING, "", True, loss, accuracy, label_bias=bias)
    values: dict[str, Any] = {"label_bias": bias}
    if is_causal(base):
        judged = measure_scrutability(base, tokenizer, reading.text, ids=reading.ids)
        perplexity = judged.measures["perplexity"].value
        values |= {"perplexity": perplexity, "readability": judged.score, "readable": judged.readable}
    return ComparedPrompt(name, reading.method, reading.text, reading.discrete, loss, accuracy, **values)


def _difference(first: str, second: str, totals: Mapping[str, TaskTotals]) -> PromptDifference:
    one, other = totals[first], totals[second]
    return PromptDifference(
        first, second, _known(one.losses.minus(other.losses)), one.hits.minus(other.hits, (-1.0, 1.0))
    )


def _known(estimate: Estimate | None) -> Estimate:
    if estimate is None:
        raise ValueError("no labelled token was compared; see that the rows have labels other than -100.")
    return estimate
