"""A language model as the judge of readability: a score fitted on what people said of sentences, one for each judge.

Three things are read off one pass over the text, which stands alone after the judge's start-of-text token:

* its likelihood, corrected for how common its words are and for its length: a linear SLOR (Pauls & Klein 2012;
  MORCELA, arXiv 2411.02528);
* its grammaticality: a linear probe on the mean hidden state of one layer, trained on sentences and the same with a
  word or more spoiled, none of which people rated;
* how often words repeat one of the two before them.

The weights and the probe are in `data/judge_<name>.json`, made by `studies/calibration/fit_judge.py`, with how well the
score agrees with people on sentences it was not fitted on.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

import peft_interp.metrics.text_metrics as text_metrics
from peft_interp.embedded import EMBEDDED, SMOLLM2, has_smollm2, load_model, load_tokenizer
from peft_interp.inference.batching import Batches, logits_tokens, padded_rows
from peft_interp.inference.eval_mode import eval_mode
from peft_interp.inference.models import AnyModel, input_embeddings
from peft_interp.metrics.likelihood import language_model, window
from peft_interp.metrics.word_frequency import text_log_rate
from peft_interp.records import short_repr
from peft_interp.text.tokenization import encode
from peft_interp.tuner.perplexity import token_nll

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FEATURES = ("nll", "log_rate", "inverse_length", "grammar", "repeats")
JUDGE_VARIABLE = "PEFT_INTERP_JUDGE"
AUTO, TASK = "auto", "task"
SAMPLE = "Is this film review positive or negative? It'd take 42 people, she says."
_DATA = Path(__file__).parent / "data"


_ANEW = "fit the judge anew (`python -m studies.calibration.fit_judge`)"
_OWN_TOKENIZER = "pass the tokenizer that belongs to the judge's model"


@dataclass(frozen=True)
class JudgeReading:
    """What a judge reads off one text.

    Attributes:
        nll: mean NLL of the tokens from the second on, given a start of text and the tokens before, nats; lower is
            more fluent.
        log_rate: log-probability of the text's words by how common they are alone, nats per token; lower is rarer.
        inverse_length: 1 / tokens.
        grammar: the probe's log-odds that nothing is spoiled; higher is more grammatical.
        repeats: share of words, 0 to 1, that repeat one of the two before them.
        slor: -`nll` - `log_rate`: likelihood corrected for rare words, nats per token; higher is more fluent.
        score: of the fit, 0 (unreadable) to 1; NaN for fewer than two tokens.
    """

    nll: float
    log_rate: float
    inverse_length: float
    grammar: float
    repeats: float
    score: float = math.nan

    @property
    def slor(self) -> float:
        """Syntactic log-odds ratio, nats per token; higher is more fluent."""
        return -self.nll - self.log_rate


@dataclass(frozen=True, repr=False)
class JudgeFit:
    """The fitted score of one judge.

    Attributes:
        judge: its name.
        start: the token that stands in front of every text, as text; "" for none.
        layer: whose hidden states the probe reads; 0 is the embeddings.
        probe: (dim,) its weights.
        probe_bias: its intercept.
        intercept: log-odds that a text is readable where all features are 0.
        coefficients: by `FEATURES`.
        threshold: the score from which on a text counts as readable.
        figures: agreement with people and shares called readable, on texts that the fit has not seen.
        provenance: script, data, date and the rule for the threshold.
        sample_ids: the tokens of `SAMPLE` as the judge reads it, by which another tokenizer is told; () for not known.
    """

    judge: str
    start: str
    layer: int
    probe: tuple[float, ...]
    probe_bias: float
    intercept: float
    coefficients: Mapping[str, float]
    threshold: float
    figures: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    sample_ids: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return short_repr("JudgeFit", judge=self.judge, layer=self.layer, coefficients=dict(self.coefficients))

    def score(self, features: Mapping[str, float]) -> float:
        """The score, 0 (unreadable) to 1; NaN where a feature is NaN."""
        z = self.intercept + sum(self.coefficients[name] * features[name] for name in FEATURES)
        return math.nan if math.isnan(z) else 1 / (1 + math.exp(-max(min(z, 700.0), -700.0)))


def load_fit(name: str) -> JudgeFit:
    """The published fit of a judge: "smollm2" or "embedded".

    Raises:
        ValueError: there is none of that name.
    """
    path = _DATA / f"judge_{name}.json"
    if not path.is_file():
        known = sorted(p.stem.removeprefix("judge_") for p in _DATA.glob("judge_*.json"))
        raise ValueError(
            f"`judge={name!r}` has no fit; use one of {', '.join(known)}, '{AUTO}', '{TASK}', or a `ReadabilityJudge` "
            "with a fit of your own (`python -m studies.calibration.fit_judge`)."
        )
    plain = json.loads(path.read_text(encoding="utf-8"))
    return JudgeFit(**{**plain, "probe": tuple(plain["probe"]), "sample_ids": tuple(plain.get("sample_ids", ()))})


class ReadabilityJudge:
    """A causal LM with the score that was fitted for it.

    Attributes:
        model: the language model.
        tokenizer: its tokenizer.
        fit: of its readings.

    Raises:
        ValueError: a fit for another model, or a tokenizer that is not the model's.
    """

    def __init__(self, model: AnyModel, tokenizer: PreTrainedTokenizerBase, fit: JudgeFit) -> None:
        self.model, self.tokenizer, self.fit = language_model(model), tokenizer, fit
        self._check_model()
        self._check_tokenizer()
        self._probe = torch.tensor(fit.probe)

    def __repr__(self) -> str:
        return short_repr("ReadabilityJudge", fit=self.fit)

    def _check_model(self) -> None:
        fit, width = self.fit, input_embeddings(self.model).weight.shape[1]
        if len(fit.probe) != width:
            raise ValueError(
                f"the fit of {fit.judge!r} is for hidden states of {len(fit.probe)} dimensions, and the judge's have "
                f"{width}; {_ANEW}."
            )
        layers = int(self.model.config.get_text_config().num_hidden_layers)
        if not 0 <= fit.layer <= layers:
            raise ValueError(
                f"the fit of {fit.judge!r} reads layer {fit.layer}, and the judge has layers 0 to {layers}; {_ANEW}."
            )

    def _check_tokenizer(self) -> None:
        fit, vocabulary = self.fit, self.tokenizer.get_vocab()
        if fit.start and fit.start not in vocabulary:
            raise ValueError(
                f"the fit of {fit.judge!r} puts {fit.start!r} in front of every text, which the tokenizer does not "
                f"have; {_OWN_TOKENIZER}."
            )
        rows = input_embeddings(self.model).weight.shape[0]
        if (largest := max(vocabulary.values())) >= rows:
            raise ValueError(f"the tokenizer has ids up to {largest}, and the judge {rows} tokens; {_OWN_TOKENIZER}.")
        if fit.sample_ids and tuple(encode(self.tokenizer, SAMPLE)) != fit.sample_ids:
            raise ValueError(
                f"the tokenizer reads {SAMPLE!r} as other tokens than the fit of {fit.judge!r} was made with; "
                f"{_OWN_TOKENIZER}."
            )

    def read(self, texts: Sequence[str]) -> list[JudgeReading]:
        """Judge texts, each by itself.

        Args:
            texts: any number; blanks around them do not count.

        Returns:
            One reading for each, in order. Texts of fewer than two tokens have NaN for NLL, grammar and score.
        """
        readings = []
        for text, (nlls, states) in zip(
            texts, read_texts(self.model, self.tokenizer, texts, self.fit.start, (self.fit.layer,)), strict=True
        ):
            grammar = float(states[0] @ self._probe) + self.fit.probe_bias if len(nlls) > 1 else math.nan
            features = {**text_features(text, nlls), "grammar": grammar}
            readings.append(JudgeReading(**features, score=self.fit.score(features)))
        return readings

    def scores(self, texts: Sequence[str]) -> list[float]:
        """Only the scores, 0 (unreadable) to 1."""
        return [reading.score for reading in self.read(texts)]


def text_features(text: str, nlls: Tensor) -> dict[str, float]:
    """All of `FEATURES` but the probe's.

    Args:
        text: what was read.
        nlls: (tokens,) nats, given the start of text.
    """
    count = max(len(nlls), 1)
    units = text_metrics.units_of(text)
    return {
        "nll": nlls[1:].mean().item() if len(nlls) > 1 else math.nan,
        "log_rate": text_log_rate(text.strip()) / count,
        "inverse_length": 1 / count,
        "repeats": len(text_metrics.recent_repeats(units)) / len(units) if units else 0.0,
    }


def read_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    start: str,
    layers: Sequence[int],
    batch_size: int = 64,
) -> list[tuple[Tensor, Tensor]]:
    """NLL of every token of texts that stand alone, and their mean hidden states.

    Args:
        model: a causal LM.
        tokenizer: its tokenizer.
        texts: blanks around them are cut off; longer ones are cut at the model's window.
        start: the token in front of each, as text; "" for none, and the first token then has NLL 0.
        layers: whose hidden states are wanted; 0 is the embeddings.
        batch_size: texts in one pass; those of like length go together, and fewer where memory runs out.

    Returns:
        For each text (tokens,) nats and (layers, dim), fp32 on the CPU; states of a text without tokens are 0.
    """
    lead = [tokenizer.get_vocab()[start]] if start else []
    room = window(model) - len(lead)
    rows = [[*lead, *encode(tokenizer, text.strip())[:room]] for text in texts]
    width = input_embeddings(model).weight.shape[1]
    found = [(torch.zeros(0), torch.zeros(len(layers), width))] * len(rows)
    order = sorted((i for i in range(len(rows)) if len(rows[i]) > len(lead)), key=lambda i: len(rows[i]))
    token_cost = 1.0 + logits_tokens(model)

    def cost(places: range, _: range) -> float:
        return len(places) * len(rows[order[places[-1]]]) * token_cost

    def work(places: range, _: range) -> None:
        part = [order[k] for k in places]
        for i, reading in zip(part, _pass(model, [rows[i] for i in part], len(lead), layers), strict=True):
            found[i] = reading

    batches = Batches()
    with eval_mode(model):
        for begin in range(0, len(order), batch_size):
            batches.run(work, cost, range(begin, min(begin + batch_size, len(order))), range(1))
    return found


def _pass(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], lead: int, layers: Sequence[int]
) -> list[tuple[Tensor, Tensor]]:
    ids, mask = padded_rows(rows, 0, model.device)  # (rows, longest)
    output = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
    nlls = token_nll(output.logits, ids).float().cpu()  # (rows, longest - 1)
    nlls = nlls if lead else torch.nn.functional.pad(nlls, (1, 0))
    states = torch.stack([output.hidden_states[layer].float().cpu() for layer in layers], 1)  # (rows, layers, n, dim)
    ends = [len(row) for row in rows]
    return [(nlls[i, : end - lead].clone(), states[i, :, lead:end].mean(1)) for i, end in enumerate(ends)]


def find_judge(judge: ReadabilityJudge | str | None, device: torch.device | str = "cpu") -> ReadabilityJudge | None:
    """The judge that a user names; loaded once in fp32 and kept.

    Args:
        judge: "smollm2", "embedded", "auto" (SmolLM2 where it is installed, else the embedded model, whose figures are
            weaker), "task" or None (none: the task's own model judges), or a judge. The environment variable
            PEFT_INTERP_JUDGE says what "auto" is.
        device: where it should run.

    Raises:
        ValueError: an unknown name, or SmolLM2's wheel is damaged.
        ModuleNotFoundError: SmolLM2 is wanted and not installed.
        OSError: SmolLM2 cannot be unpacked; the message says how to do without it.
    """
    if judge == AUTO:
        judge = os.environ.get(JUDGE_VARIABLE) or AUTO
    if judge == AUTO:
        judge = SMOLLM2 if has_smollm2() else EMBEDDED
    if judge is None or judge == TASK:
        return None
    if isinstance(judge, ReadabilityJudge):
        return judge
    try:
        return _load(judge, str(device))
    except OSError as error:
        if judge != SMOLLM2:
            raise
        raise OSError(
            error.errno,
            f"{error.strerror or error}; or let the model in the package judge, which agrees with people less: "
            f"`judge='{EMBEDDED}'` (reports: `scrutability={{'judge': '{EMBEDDED}'}}`; command line: `--judge "
            f"{EMBEDDED}`; everywhere: {JUDGE_VARIABLE}={EMBEDDED})",
        ) from error


@cache
def _load(name: str, device: str) -> ReadabilityJudge:
    fit, model = load_fit(name), cast(Any, load_model(name))
    return ReadabilityJudge(model.to(device), load_tokenizer(name), fit)


def as_features(reading: JudgeReading) -> dict[str, float]:
    """The readings that the score is made of, by `FEATURES`."""
    return {name: value for name, value in asdict(reading).items() if name in FEATURES}
