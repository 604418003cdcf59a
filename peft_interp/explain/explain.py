"""`explain_prompt`: a text that behaves like a prompt, or the words that there is none.

Nearest tokens need not say what a soft prompt does (arXiv 2112.08348). Here a text explains a prompt as far as the
model gives the same answers with it, on rows that did not help to find it; how the text was found does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from peft import PeftModel, PeftType
from torch import Tensor

from peft_interp.explain.activations import compare_states
from peft_interp.explain.demonstrations import Shown, shown_answers
from peft_interp.explain.judging import Bench, make_bench
from peft_interp.explain.pool import CandidatePool, Found
from peft_interp.explain.sources import SOURCES, Hunt, Source, make_proposer
from peft_interp.explain.target import Target, compared, has_vectors, make_target, two_halves
from peft_interp.inference.eval_mode import eval_mode
from peft_interp.inference.model_lock import locked
from peft_interp.inference.models import base_model_of, input_embeddings
from peft_interp.inference.progress import progress_bar
from peft_interp.metrics.comparison import ComparisonSetup
from peft_interp.metrics.reading import prompt_config, prompt_vectors, read_prompt
from peft_interp.report.explained import IDLE, LEAST_EFFECT, ExplanationCandidate, why_no_text
from peft_interp.report.explanation import PromptExplanation
from peft_interp.report.provenance import describe
from peft_interp.text.placement import placement_of
from peft_interp.text.rows import Rows
from peft_interp.text.surrounding_text import surrounding_text
from peft_interp.text.token_filter import allowed_tokens
from peft_interp.text.tokenization import check_tokenizer, config_token_ids, leading_ids
from peft_interp.text.verbalizer import Verbalizer, check_verbalizer
from peft_interp.tuner.config import PEFT_TYPE_NAME, InterpPromptConfig

if TYPE_CHECKING:
    from tqdm.auto import tqdm
    from transformers import PreTrainedTokenizerBase

BUDGET = 3000
SHORTEST_LIMIT = 16  # tokens that a text may have in any case, however short the prompt
_FEW_ROWS = 8  # that the search looks at
_MOST_ROWS = 64  # of each half
_JUDGED, _JUDGED_OF_EACH = 10, 2  # texts that are judged: of all, and of each source besides
_EQUAL = 0.01  # of what there is to explain; of texts no further apart the one from the earlier source is the plainer


@locked
def explain_prompt(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    verbalizer: Verbalizer | None = None,
    label_token_ids: Sequence[int] | None = None,
    sources: Sequence[str] | None = None,
    budget: int = BUDGET,
    seed: int = 0,
    longest: int | None = None,
    activations: bool | None = None,
    adapter_name: str | None = None,
    batch_size: int = 32,
    context: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> PromptExplanation:
    """Look for a text that does what a prompt does, and say how much of it the text explains.

    Half of the rows find texts, the other half judge them. No text is shown where the best closes less than half of
    KL(prompt || no prompt), or where it acts against the prompt: where it raises one label and the prompt another.

    Args:
        model: a `PeftModel` with a prompt adapter for CAUSAL_LM; of prefix tuning only the answers are looked at.
        tokenizer: the base model's.
        rows: tokenised examples without a prompt, as for `measure_faithfulness`; at least 8; up to 128 are used.
        verbalizer: names the label words, for the calibrated figures and for what acts against the prompt.
        label_token_ids: the label words' ids, where there is no verbalizer.
        sources: where candidates come from, by their names in `explain.sources.SOURCES`; None for all.
        budget: pairs of text and row that are run to find texts, roughly; a gradient counts as three. More finds more.
        seed: decides everything that is drawn.
        longest: most tokens of a text; None: as many as the prompt has, at least 16.
        activations: compare hidden states of prompt and best text as well; None: where the prompt has input vectors.
        adapter_name: None for the active one.
        batch_size: rows at a time where texts are judged.
        context: what else the reader should know, in what JSON can hold.
        progress: show a progress bar.

    Returns:
        The explanation: text or none, what it explains and what not, all candidates with their scores and sources.

    Raises:
        ValueError: no prompt adapter, another task type, fewer than 8 rows, rows without labels, an unknown source, a
            budget below 1, or `activations=True` for prefix tuning.
        FloatingPointError: the prompt's vectors are not finite.
    """
    config = prompt_config(model, adapter_name)
    check_tokenizer(tokenizer)
    vectors = has_vectors(model, adapter_name)
    chosen = _check(sources, budget, longest, activations, vectors)
    if verbalizer is not None:
        check_verbalizer(verbalizer, placement_of(config))
        label_token_ids = label_token_ids or verbalizer.label_token_ids(tokenizer)
    known = {**describe(model, adapter_name, rows, verbalizer), "seed": seed, "budget": budget, **(context or {})}
    given = _Given(chosen, budget, seed, longest or max(SHORTEST_LIMIT, config.num_virtual_tokens), label_token_ids)
    with eval_mode(model, adapter_name), progress_bar(budget, "Looking for a text", progress) as bar:
        setup = compared(model, tokenizer, rows, label_token_ids, batch_size)
        found, judging = _explain(model, tokenizer, setup, given, known, bar)
        if (vectors if activations is None else activations) and found.best is not None:
            found = replace(found, activations=compare_states(setup, judging.rows, found.best.text))
    return found


@dataclass(frozen=True)
class _Given:
    """What the user asked for, checked."""

    sources: Sequence[Source]
    budget: int
    seed: int
    longest: int
    label_token_ids: Sequence[int] | None


def _explain(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    setup: ComparisonSetup,
    given: _Given,
    context: Mapping[str, Any],
    bar: tqdm,
) -> tuple[PromptExplanation, Target]:
    """The explanation without activations, and the rows that judged."""
    halves = two_halves(setup.rows, given.seed, _MOST_ROWS)
    finding, judging = (make_target(setup, half, given.longest) for half in halves)
    benches = make_bench(finding, given.label_token_ids), make_bench(judging, given.label_token_ids)
    pool = _make_pool(finding, given.longest, bar)
    if max(bench.kl_without for bench in benches) >= LEAST_EFFECT:
        _hunt(model, tokenizer, pool, _others(finding, pool.target), given)
    return _explanation(
        _ranked(pool, benches), benches, pool, context, given.label_token_ids, method_of(model)
    ), judging


def _check(
    sources: Sequence[str] | None, budget: int, longest: int | None, activations: bool | None, vectors: bool
) -> list[Source]:
    """The sources that are asked, and whether everything else can be."""
    names = [source.name for source in SOURCES]
    if isinstance(sources, str) or (unknown := sorted(set(sources or ()) - set(names))):
        shown = sources if isinstance(sources, str) else unknown
        raise ValueError(f"`sources={shown!r}` must be a list of some of {', '.join(names)}; None asks them all.")
    if budget < 1:
        raise ValueError(f"`budget={budget}` must be >= 1, pairs of text and row; {BUDGET} is usual.")
    if longest is not None and longest < 1:
        raise ValueError(f"`longest={longest}` must be >= 1, tokens of a text; None: as many as the prompt has.")
    if activations and not vectors:
        raise ValueError(
            "`activations=True` compares hidden states at a prompt's places, and PREFIX_TUNING has none: it puts keys "
            "and values into the layers; leave it out, or say `activations=False`."
        )
    chosen = [s for s in SOURCES if (sources is None or s.name in sources) and (vectors or not s.needs_vectors)]
    if not chosen:
        usable = ", ".join(source.name for source in SOURCES if vectors or not source.needs_vectors)
        raise ValueError(
            f"`sources={list(sources or ())}` leaves nothing to ask for this prompt; use some of {usable}."
        )
    return chosen


def _make_pool(finding: Target, longest: int, bar: tqdm) -> CandidatePool:
    setup = finding.setup
    beside = surrounding_text(setup.tokenizer, finding.rows, setup.placement)
    return CandidatePool(finding.subset(_FEW_ROWS), beside, longest, bar.update)


def method_of(model: PeftModel) -> str:
    """PEFT's name of the active prompt's method."""
    config = prompt_config(model)
    return PEFT_TYPE_NAME if isinstance(config, InterpPromptConfig) else str(PeftType(config.peft_type).value)


def _others(finding: Target, few: Target) -> list[Shown]:
    """The rows that the search does not look at, with the prompt's answers; all of them where there are no others."""
    seen = {id(row) for row in few.rows}
    others = [number for number, row in enumerate(finding.rows) if id(row) not in seen]
    return shown_answers(finding.part(others) if others else finding)


def _hunt(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    pool: CandidatePool,
    examples: Sequence[Shown],
    given: _Given,
) -> None:
    """Ask every source; one that finds the prompt itself ends it."""
    base = base_model_of(model)
    table = input_embeddings(base).weight
    allowed = allowed_tokens(table, tokenizer, "printable", special_token_ids=config_token_ids(base.config))
    vectors, exact = None, None
    if has_vectors(model):
        vectors, reading = prompt_vectors(model).to(table.device), read_prompt(model, tokenizer, neighbours=1)
        exact = reading.ids if reading.discrete else None
    length = min(int(model.active_peft_config.num_virtual_tokens), pool.longest)
    proposer = make_proposer(base, tokenizer, allowed, pool.longest, leading_ids(tokenizer))
    hunt = Hunt(base, tokenizer, vectors, exact, allowed.cpu(), length, pool, proposer, examples, given.seed)
    shares = sum(source.share for source in given.sources) or 1.0
    for source in given.sources:
        if not hunt.done:
            source.function(hunt, round(given.budget * source.share / shares))


@dataclass(frozen=True)
class _Judged:
    """A text on both halves of the rows."""

    finding: ExplanationCandidate
    judging: ExplanationCandidate
    answers: Tensor


def _ranked(pool: CandidatePool, benches: tuple[Bench, Bench]) -> list[_Judged]:
    """The best texts of all and of each source, nearest on the rows that found them first."""
    few: dict[tuple[int, ...], Found] = {one.candidate.ids: one for one in pool.best(_JUDGED)}
    for source in SOURCES:
        few |= {one.candidate.ids: one for one in pool.best(_JUDGED_OF_EACH, source.name)}
    judged = []
    for one in few.values():
        first, _ = benches[0].judge(one, one.kl)
        second, answers = benches[1].judge(one, first.kl)
        judged.append(_Judged(replace(first, search_kl=first.kl), second, answers))
    return sorted(judged, key=lambda one: one.finding.kl)


def _explanation(
    ranked: Sequence[_Judged],
    benches: tuple[Bench, Bench],
    pool: CandidatePool,
    context: Mapping[str, Any],
    label_token_ids: Sequence[int] | None,
    method: str,
) -> PromptExplanation:
    """The first text that explains on the rows that found it, if the other rows say the same."""
    finding, judging = benches
    at_first = [why_no_text(one.finding, finding.kl_without, finding.calibrated_without) for one in ranked]
    place = _plainest([one.finding for one in ranked], at_first, _EQUAL * finding.kl_without)
    ordered = [*ranked[place : place + 1], *ranked[:place], *ranked[place + 1 :]]
    reason, best = IDLE, ordered[0] if ordered else None
    if best is not None:
        reason = why_no_text(best.judging, judging.kl_without, judging.calibrated_without) or at_first[place]
    labels = judging.target.setup.names(label_token_ids) if label_token_ids is not None else ()
    return PromptExplanation(
        text=best.judging.text if best is not None and not reason else None,
        reason=reason,
        candidates=tuple(one.judging for one in ordered),
        kl_without=judging.kl_without,
        calibrated_kl_without=judging.calibrated_without,
        rows=len(judging.target.rows),
        search_rows=len(finding.target.rows),
        evaluations=pool.evaluations,
        method=method,
        labels=judging.shares(best.answers, labels) if best is not None else (),
        context=dict(context),
    )


def _plainest(texts: Sequence[ExplanationCandidate], reasons: Sequence[str], equal: float) -> int:
    """The place of the nearest text that explains, or of one as near from a source that says it more plainly.

    Args:
        texts: nearest first.
        reasons: why each explains nothing; "" where it does.
        equal: nats between texts that count as equally near.
    """
    known = [place for place, reason in enumerate(reasons) if not reason]
    if not known:
        return 0
    names = [source.name for source in SOURCES]
    near = [place for place in known if texts[place].kl <= texts[known[0]].kl + equal]
    return min(near, key=lambda place: (names.index(texts[place].source), place))
