"""How far two behaviours are apart: pure functions on vectors, logits and token ids.

The three differentials of "Towards Interpretable Soft Prompts" (arXiv 2504.02144) are the distance between vectors and
their tokens' rows, the distance between two outputs, and the difference of two losses (a subtraction, done where the
losses are). All are 0 for equal behaviour and lower is more faithful; top-1 agreement is 1 there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from peft_interp.metrics.answer_results import TIED
from peft_interp.metrics.results import Performance
from peft_interp.metrics.uncertainty import RowValues
from peft_interp.records import markdown_table
from peft_interp.text.tokenization import as_ids
from peft_interp.text.verbalizer import right_answers


def vector_distances(vectors: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Distance of each prompt vector to its token's row; the mean over the prompt is the distance differential.

    Delta_D = (1/L) sum_i D(f(P_i), vector_i) (arXiv 2504.02144). Where two are equal bit for bit, both are exactly 0.

    Args:
        vectors: (prompt, dim).
        rows: (prompt, dim).

    Returns:
        Cosine distance (prompt,), 0 (same direction) to 2, 1 where a norm is zero; euclidean distance (prompt,), in
        the table's units. Both in fp32.
    """
    vectors, rows = vectors.float(), rows.float()
    norms = vectors.norm(dim=-1) * rows.norm(dim=-1)
    cosine = (vectors * rows).sum(-1) / norms.clamp_min(1e-12)
    equal = (vectors == rows).all(dim=-1)
    cosine_distance = (1 - cosine).clamp(0, 2).masked_fill(equal, 0)
    return cosine_distance, (vectors - rows).norm(dim=-1)


def logit_mse(logits: Tensor, others: Tensor) -> Tensor:
    """Output differential of each position: (1/|X|) sum_j (l_j - l'_j)^2 (arXiv 2504.02144).

    It also sees a constant added to all logits, which changes no probability; KL does not.

    Args:
        logits: (positions, vocabulary).
        others: (positions, vocabulary).

    Returns:
        (positions,) in fp32, squared logits, >= 0; lower is more faithful.
    """
    return (logits.float() - others.float()).square().mean(-1)


def kl_divergence(log_probs: Tensor, others: Tensor) -> Tensor:
    """KL(p || q) = sum_j p_j (log p_j - log q_j) of each position: what is lost by believing q.

    Args:
        log_probs: (positions, vocabulary), log p.
        others: (positions, vocabulary), log q.

    Returns:
        (positions,) in nats, >= 0; lower is more faithful.
    """
    terms = log_probs.exp() * (log_probs - others)
    return terms.masked_fill(log_probs == -torch.inf, 0).sum(-1).clamp_min(0)


def js_divergence(log_probs: Tensor, others: Tensor) -> Tensor:
    """Jensen-Shannon divergence (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2, of each position.

    Args:
        log_probs: (positions, vocabulary), log p.
        others: (positions, vocabulary), log q.

    Returns:
        (positions,) in nats, 0 to ln 2, symmetric; lower is more faithful.
    """
    middle = torch.logaddexp(log_probs, others) - torch.log(log_probs.new_tensor(2.0))
    return (kl_divergence(log_probs, middle) + kl_divergence(others, middle)) / 2


def top1_agreement(logits: Tensor, others: Tensor) -> Tensor:
    """Whether both sides find the same token likeliest.

    Args:
        logits: (positions, vocabulary).
        others: (positions, vocabulary).

    Returns:
        (positions,) bool; the share of true ones is 0 to 1, higher is more faithful.
    """
    return logits.argmax(-1) == others.argmax(-1)


def edit_distance(first: Sequence[int], second: Sequence[int]) -> int:
    """Least number of insertions, deletions and substitutions that turn one list of ids into the other."""
    above = list(range(len(second) + 1))
    for i, one in enumerate(first, start=1):
        current = [i]
        for j, other in enumerate(second, start=1):
            current.append(min(above[j] + 1, current[j - 1] + 1, above[j - 1] + (one != other)))
        above = current
    return above[-1]


def token_error_rate(ids: Sequence[int], again: Sequence[int], length: int | None = None) -> float:
    """Edit distance between ids and the re-tokenised ones, for each token.

    Args:
        ids: the ids before decoding.
        again: the ids after decode -> encode.
        length: number of tokens to divide by; None for `len(ids)`.

    Returns:
        0 where the text survives; lower is better; may pass 1 where the text becomes more tokens.
    """
    return edit_distance(ids, again) / max(1, len(ids) if length is None else length)


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of equal ids at the beginning."""
    for i, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return i
    return min(len(first), len(second))


def common_suffix(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of equal ids at the end."""
    return common_prefix(first[::-1], second[::-1])


_IDS_MADE_BY = "`verbalizer.label_token_ids(tokenizer)` from the label words"

_SLICE = 64  # positions compared at a time: bounds the copies that the comparison makes


class OutputPair(NamedTuple):
    """Logits with the prompt and with its text, at the same positions.

    Attributes:
        logits, others: (positions, vocabulary) of the prompt as it acts, and of the text in its place.
        log_probs, other_log_probs: the same as log-probabilities, fp32.
    """

    logits: Tensor
    others: Tensor
    log_probs: Tensor
    other_log_probs: Tensor


@dataclass(frozen=True)
class Differential:
    """One number of `Faithfulness` that compares a prompt with its text.

    Attributes:
        name: the field of `Faithfulness`.
        label: its name in reports.
        words: what it is, in a few words, with its unit.
        exact: what it is where the text is the prompt, or its range.
        better: "lower", "higher", or "" where neither is good in itself.
        written: how reports write it: "number" or "share".
        function: (positions,) of two sides' outputs, for what is a mean over positions.
    """

    name: str
    label: str
    words: str
    exact: str = "0 if the text is the prompt"
    better: str = "lower"
    written: str = "number"
    function: Callable[[OutputPair], Tensor] | None = None


DIFFERENTIALS = (
    Differential("cosine_distance", "cosine distance", "distance differential: mean over tokens, 0 to 2"),
    Differential(
        "euclidean_distance", "euclidean distance", "distance differential: mean over tokens, the table's units"
    ),
    Differential("loss_difference", "loss difference", "performance differential"),
    Differential("accuracy_difference", "accuracy difference", "as prompt minus as text", better=""),
    Differential(
        name="logit_mse",
        label="logit difference",
        words="output differential, squared",
        function=lambda pair: logit_mse(pair.logits, pair.others),
    ),
    Differential(
        name="kl",
        label="KL divergence",
        words="prompt's answers from the text's, nats",
        function=lambda pair: kl_divergence(pair.log_probs, pair.other_log_probs),
    ),
    Differential(
        name="js",
        label="Jensen-Shannon",
        words="the same, bounded",
        exact=f"0 to {math.log(2):.2f}",
        function=lambda pair: js_divergence(pair.log_probs, pair.other_log_probs),
    ),
    Differential(
        name="top1_agreement",
        label="same likeliest word",
        words="share of positions",
        exact="100%",
        better="higher",
        written="share",
        function=lambda pair: top1_agreement(pair.logits, pair.others),
    ),
    Differential(
        name="token_error_rate",
        label="token error rate",
        words="share of tokens that come back otherwise",
        exact="0%",
        written="share",
    ),
)


class OutputTotals:
    """The output differentials of two sides, summed over positions."""

    def __init__(self) -> None:
        self.positions = 0
        self.sums = {found.name: 0.0 for found in DIFFERENTIALS if found.function}
        self.kl, self.agreement = RowValues(), RowValues()

    def add(self, logits: Tensor, others: Tensor, owners: Sequence[int]) -> None:
        """Count two sides' logits at the same positions, (positions, vocabulary) each, of the rows `owners`."""
        done = 0
        for first, second in zip(logits.split(_SLICE), others.split(_SLICE), strict=True):
            pair = OutputPair(first, second, first.float().log_softmax(-1), second.float().log_softmax(-1))
            each = {found.name: found.function(pair) for found in DIFFERENTIALS if found.function}
            totals = torch.stack([values.double().sum() for values in each.values()]).tolist()
            for name, total in zip(each, totals, strict=True):
                self.sums[name] += total
            here, done = owners[done : done + len(first)], done + len(first)
            self.kl.add(here, each["kl"].tolist())
            self.agreement.add(here, each["top1_agreement"].tolist())
        self.positions += len(logits)

    def means(self) -> dict[str, float]:
        """Every output differential by name, mean over positions."""
        return {name: total / max(1, self.positions) for name, total in self.sums.items()}


LabelIds = Sequence[int] | Sequence[Sequence[int]]


def as_sequences(label_token_ids: Any) -> list[list[int]] | None:
    """Label words of several tokens each, or None where each is one."""
    if not isinstance(label_token_ids, list | tuple) or not label_token_ids:
        return None
    if not all(isinstance(ids, list | tuple) and ids for ids in label_token_ids):
        return None
    return [as_ids(ids, "label_token_ids", _IDS_MADE_BY).tolist() for ids in label_token_ids]


class TaskTotals:
    """Loss and accuracy over batches, with the prompt, with its text, or with neither.

    Args:
        label_token_ids: the label words' ids, or for words of several tokens a list of ids for each (`sequences`),
            which are counted by `add_choices` alone; an empty list for all classes of a classifier; None for no
            accuracy.
        label_bias: numbers to add to the label words' scores before they are compared, nats; None for none. The loss
            is that of the whole vocabulary, without them.

    Raises:
        ValueError: no list of ids, or not one finite number for each.
    """

    def __init__(self, label_token_ids: LabelIds | None, label_bias: Sequence[float] | None = None) -> None:
        ids: Any = label_token_ids
        if label_bias is not None and (len(label_bias) != len(ids or ()) or not all(map(math.isfinite, label_bias))):
            raise ValueError(
                f"`label_bias={list(label_bias)}` must be one finite number for each of the {len(ids or ())} label "
                "words; see `calibrate`."
            )
        self.bias = label_bias
        self.sequences = as_sequences(ids)
        ids = ids if self.sequences is None else [sequence[0] for sequence in self.sequences]
        self.choices = None if ids is None else as_ids(ids, "label_token_ids", _IDS_MADE_BY).tolist()
        self.loss = 0.0
        self.labels = self.rows = self.right = 0
        self.answered: Tensor | None = None  # (2, label words): sums of probabilities, and of right answers
        self.losses, self.hits = RowValues(), RowValues()
        self.answers: dict[int, tuple[int, int]] = {}  # by row: places of its label and its answer among the choices

    def add(
        self, logits: Tensor, targets: Sequence[int], first: Sequence[bool], owners: Sequence[int] | None = None
    ) -> None:
        """Count labelled positions.

        Args:
            logits: (positions, vocabulary).
            targets: (positions,) label of each, -100 for none.
            first: (positions,) whether it is its row's answer, by which accuracy is judged.
            owners: (positions,) number of its row, for what is told row by row; None for nothing of that.

        Raises:
            ValueError: an answer that is no label word.
        """
        gold = torch.tensor(targets, device=logits.device)
        losses = nn.functional.cross_entropy(logits.float(), gold, reduction="none", ignore_index=-100)
        self.loss += losses.double().sum().item()
        self.labels += sum(target != -100 for target in targets)
        if owners is not None:
            labelled = [n for n, target in enumerate(targets) if target != -100]
            self.losses.add([owners[n] for n in labelled], losses[labelled].tolist())
        if self.choices is None or self.sequences is not None:
            return
        answers = torch.tensor([i for i, yes in enumerate(first) if yes], device=logits.device, dtype=torch.long)
        scores = logits[answers].float()
        wanted = gold[answers]
        if self.choices:
            known = torch.tensor(list(self.choices), device=logits.device)
            match = wanted.unsqueeze(1) == known  # (rows, labels)
            if not bool(match.any(dim=1).all()):
                strange = wanted[~match.any(dim=1)].unique().tolist()
                raise ValueError(
                    f"rows are labelled with token ids {strange}, which are not among `label_token_ids="
                    f"{list(self.choices)}`; pass the ids of all label words, or None for no accuracy."
                )
            scores, wanted = scores[:, known], match.int().argmax(dim=1)
        self._count(scores, wanted, None if owners is None else [owners[i] for i in answers.tolist()])

    def add_choices(self, scores: Tensor, answers: Sequence[Sequence[int]], owners: Sequence[int]) -> None:
        """Count rows whose label words were scored as sequences.

        Args:
            scores: (rows, labels) log-probabilities.
            answers: each row's own answer.
            owners: (rows,) number of each.

        Raises:
            ValueError: an answer that is no label word.
        """
        known = [tuple(sequence) for sequence in self.sequences or ()]
        if strange := sorted({tuple(answer) for answer in answers} - {*known}):
            raise ValueError(
                f"rows are labelled with the tokens {[list(i) for i in strange]}, which are not among "
                f"`label_token_ids={[list(i) for i in known]}`; pass those of all label words, or None for no accuracy."
            )
        gold = torch.tensor([known.index(tuple(answer)) for answer in answers], device=scores.device)
        self._count(scores, gold, owners)

    def _count(self, scores: Tensor, wanted: Tensor, owners: Sequence[int] | None) -> None:
        """Rows' label words: (rows, labels) scores, and which is right."""
        if self.bias is not None:
            scores = scores + torch.tensor(list(self.bias), device=scores.device)
        right = right_answers(scores, wanted)
        self.right += int(right.sum())
        self.rows += len(wanted)
        if owners is not None:
            self.hits.add(owners, right.tolist())
            told = zip(wanted.tolist(), _likeliest(scores).tolist(), strict=True)
            self.answers.update(zip(owners, told, strict=True))
        gold_shares = nn.functional.one_hot(wanted, scores.shape[1])
        sums = torch.stack([scores.double().softmax(dim=1).sum(dim=0), gold_shares.double().sum(dim=0)]).cpu()
        self.answered = sums if self.answered is None else self.answered + sums

    def performance(self) -> Performance:
        """Means so far; NaN where nothing was counted."""
        loss = self.loss / self.labels if self.labels else float("nan")
        return Performance(loss, self.right / self.rows if self.choices is not None and self.rows else None)

    def shares(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean probability of each label word among them, and the share of rows whose answer it is.

        None where nothing was counted.
        """
        if self.answered is None or not self.rows:
            return None
        answered, gold = (self.answered / self.rows).tolist()
        return tuple(answered), tuple(gold)


def _likeliest(scores: Tensor) -> Tensor:
    """(rows,) place of the highest of (rows, labels); `TIED` where several share it, or a score is NaN."""
    highest = scores == scores.amax(dim=1, keepdim=True)
    return torch.where(highest.sum(dim=1) == 1, highest.int().argmax(dim=1), TIED)


def differential_table() -> str:
    """`DIFFERENTIALS` as Markdown."""
    rows = [[f"`{d.name}`", d.label, d.words, d.better or "neither", d.exact] for d in DIFFERENTIALS]
    return markdown_table(("name", "in reports", "what", "better", "beside"), rows)
