"""How far a task can be solved by vectors whose nearest tokens say something else.

"Prompt waywardness" (arXiv 2112.08348): a continuous prompt can be found that solves a task while it projects to an
arbitrary, even contradictory text. Measured for a model and task, it bounds how much a nearest-token reading of a soft
prompt may be believed: if a prompt that reads "cooking pasta" does as well as any, what a prompt reads as says nothing
about why it works. A hinge on the cosine keeps every vector nearest to its target token and leaves it free otherwise.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from peft_interp.inference.eval_mode import eval_mode
from peft_interp.inference.model_lock import locked
from peft_interp.inference.models import AnyModel, input_embeddings
from peft_interp.inference.progress import progress_bar
from peft_interp.metrics.comparison import ComparisonSetup, ModelRunner, count_task
from peft_interp.metrics.differentials import LabelIds, TaskTotals
from peft_interp.metrics.results import Performance, Waywardness
from peft_interp.metrics.text_rows import PlacedRow
from peft_interp.text.placement import IGNORED, Placement, placement_named, placement_of
from peft_interp.text.rows import Row, Rows, read_rows
from peft_interp.text.token_filter import allowed_tokens
from peft_interp.text.tokenization import leading_token_ids, pad_token_id
from peft_interp.tuner.embedding import Prompt
from peft_interp.tuner.model_inputs import compose_inputs
from peft_interp.tuner.projection import row_terms, similarity

if TYPE_CHECKING:
    from tqdm.auto import tqdm
    from transformers import PreTrainedTokenizerBase

_MARGIN = 0.05  # by how much, in cosine, a vector stays nearer to its target than to any other token


@locked
def measure_waywardness(
    model: AnyModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    target_text: str,
    label_token_ids: LabelIds | None = None,
    steps: int = 150,
    eval_rows: Rows | None = None,
    learning_rate: float = 0.1,
    weight: float = 10.0,
    batch_size: int = 16,
    seed: int = 0,
    progress: bool = True,
    position: str | None = None,
) -> Waywardness:
    """Train a fresh soft prompt that projects to `target_text` to solve the task all the same.

    loss = task + weight * mean over vectors of max(0, margin + best other cosine - cosine to the target).

    Args:
        model: a causal LM, or a `PeftModel` with a prompt adapter on one; adapters are neither used nor changed.
        tokenizer: the base model's.
        rows: tokenised examples to train on, as for `measure_faithfulness`.
        target_text: what the prompt is to read as, something that does not describe the task or contradicts it.
        label_token_ids: the label words' ids, for accuracies.
        steps: optimizer steps (Adam).
        eval_rows: examples to report on; None for `rows`. Held-out ones are better.
        learning_rate: Adam's.
        weight: of the hinge.
        batch_size: rows in a step.
        seed: of the order of rows; the caller's random state is not touched.
        progress: show a bar.
        position: where the prompt stands, "start" or "end" (right before the answer); None for where the active
            adapter's stands, and before the text without one.

    Returns:
        The share of vectors nearest to their target token, the task with them, and with the target text itself. The
        vectors start at the target and only steps that keep the share count, so it is below 1 only where the table
        holds equal rows. The wider the gap between the two performances, the less a nearest-token reading explains.

    Raises:
        ValueError: not a causal LM, another position, a target text without tokens or with special ones, or unusable
            rows.
    """
    place = _placement(model) if position is None else placement_named(position)
    with eval_mode(model):
        base = cast(PreTrainedModel, getattr(model, "get_base_model", lambda: model)())
        ids = _target_ids(base, tokenizer, target_text, place)
        train, test = (
            _comparison(base, tokenizer, x, label_token_ids, batch_size, len(ids), place)
            for x in (rows, rows if eval_rows is None else eval_rows)
        )
        order = _order(len(train.rows), batch_size, steps, seed)
        with progress_bar(steps, "Training towards another text", progress) as bar:
            vectors = _train(train, ids, order, learning_rate, weight, bar)
        return _judge(test, target_text, ids, vectors)


def _placement(model: AnyModel) -> Placement:
    """Where the active adapter's prompt stands."""
    return placement_of(model.active_peft_config if isinstance(model, PeftModel) else None)


def _target_ids(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, target_text: str, placement: Placement
) -> Tensor:
    """(prompt,) ids of the target text, as it is tokenised where it stands."""
    if base.config.is_encoder_decoder or base.get_output_embeddings() is None:
        raise ValueError(f"{type(base).__name__} is no causal language model; waywardness is measured on those only.")
    ids = torch.tensor(placement.encode_prompt(tokenizer, target_text), device=base.device)
    if not len(ids) or not bool(_allowed(base, tokenizer)[ids].all()):
        raise ValueError(f"`target_text={target_text!r}` has no tokens, or special ones; give plain words.")
    return ids


def _allowed(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    return allowed_tokens(input_embeddings(base).weight, tokenizer).to(base.device)


def _judge(setup: ComparisonSetup, target_text: str, ids: Tensor, vectors: Tensor) -> Waywardness:
    """What the vectors project to, and how well they and the target text do."""
    table, allowed = (
        input_embeddings(setup.text.base).weight,
        _allowed(setup.text.base, setup.tokenizer),
    )
    share = _margins(vectors, table, allowed, ids).gt(0).float().mean().item()
    text = setup.placement.decode_prompt(setup.tokenizer, ids.tolist())
    wayward = _performance(setup, _runner(setup, vectors, ids), setup.as_prompt(setup.rows))
    as_text = _performance(setup, setup.text, setup.as_text(setup.rows, text, ids.tolist()))
    return Waywardness(target_text, share, wayward, as_text)


def _comparison(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    label_ids: LabelIds | None,
    size: int,
    length: int,
    placement: Placement,
) -> ComparisonSetup:
    named = pad_token_id(base.config)
    pad = named if named is not None else tokenizer.pad_token_id
    counts = "position_ids" in inspect.signature(base.forward).parameters
    side = ModelRunner(call=base, base=base, pad_id=pad or 0, states_positions=counts)
    read = read_rows(rows, leading_token_ids(tokenizer, base.config), placement)
    setup = ComparisonSetup("CAUSAL_LM", read, side, side, tokenizer, length, placement, label_ids, size)
    setup.check_room(setup.as_prompt(read), length)
    return setup


def _runner(setup: ComparisonSetup, vectors: Tensor, ids: Tensor) -> ModelRunner:
    """The base model with these vectors as its prompt."""
    base, leading = setup.text.base, leading_token_ids(setup.tokenizer, setup.text.base.config)

    def call(input_ids: Tensor, attention_mask: Tensor, return_dict: bool, labels: Tensor | None = None) -> Any:
        prompt, embeddings = Prompt(vectors, vectors, ids, vectors), input_embeddings(base)
        composed = compose_inputs(
            prompt,
            embeddings,
            leading,
            input_ids,
            None,
            attention_mask,
            as_ids=False,
            placement=setup.placement,
            answer=None if labels is None else labels.ne(IGNORED),
        )
        inputs = composed.with_positions(base) if setup.text.states_positions else composed.inputs
        return base(**inputs, return_dict=return_dict)

    return ModelRunner(call=call, base=base, extra=len(ids) - setup.placement.marked, pad_id=setup.text.pad_id)


def _train(
    setup: ComparisonSetup,
    ids: Tensor,
    order: Sequence[Sequence[int]],
    learning_rate: float,
    weight: float,
    bar: tqdm,
) -> Tensor:
    """(prompt, dim) trained vectors: of the steps at which most project to the target, the one of the least loss."""
    table, allowed = input_embeddings(setup.text.base), _allowed(setup.text.base, setup.tokenizer)
    start = table.forward(ids).detach().float()
    vectors = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([vectors], lr=learning_rate)
    placed = setup.as_prompt(setup.rows)
    targets = [_targets(setup, row, p) for row, p in zip(setup.rows, placed, strict=True)]
    best, best_key = start, (-1.0, 0.0)
    smooth: float | None = None
    for batch in order:
        batch = [i for i in batch if targets[i]]
        if not batch:
            continue
        with torch.enable_grad():
            logits = _runner(setup, vectors, ids).logits(
                [setup.request(setup.rows[i], placed[i], targets[i], as_prompt=True) for i in batch]
            )
            gold = torch.tensor([setup.rows[i].labels[j] for i in batch for j in targets[i]], device=logits.device)
            task = nn.functional.cross_entropy(logits.float(), gold)
            margins = _margins(vectors, table.weight, allowed, ids)
            loss = task + weight * (_MARGIN - margins).clamp_min(0).mean()
            (vectors.grad,) = torch.autograd.grad(loss, vectors)  # the base model's parameters get none
        smooth = task.item() if smooth is None else 0.9 * smooth + 0.1 * task.item()
        key = (margins.gt(0).float().mean().item(), -smooth)
        if key > best_key:
            best, best_key = vectors.detach().clone(), key
        optimizer.step()
        bar.update(1)
    return best


def _margins(vectors: Tensor, table: Tensor, allowed: Tensor, ids: Tensor) -> Tensor:
    """(prompt,) cosine to the target token minus that to the nearest other allowed token."""
    cosines = similarity(vectors, table, "cosine", row_terms(table, "cosine"))
    target = cosines.gather(1, ids.unsqueeze(1)).squeeze(1)
    others = cosines.masked_fill(~allowed, -torch.inf).scatter(1, ids.unsqueeze(1), -torch.inf)
    return target - others.amax(dim=1)


def _targets(setup: ComparisonSetup, row: Row, placed: PlacedRow) -> list[int]:
    known = setup.predicted(row, placed)
    return [j for j in setup.wanted(row, "answers") if j in known]


def _performance(setup: ComparisonSetup, runner: ModelRunner, placed: Sequence[PlacedRow]) -> Performance:
    totals = TaskTotals(setup.label_token_ids)
    targets = [_targets(setup, row, p) for row, p in zip(setup.rows, placed, strict=True)]
    for batch in setup.batches(placed, targets):
        asked = [i for i in batch if targets[i]]
        if asked:
            as_prompt = runner is not setup.text
            logits = runner.logits([setup.request(setup.rows[i], placed[i], targets[i], as_prompt) for i in asked])
            count_task(totals, logits, [setup.rows[i] for i in asked], [targets[i] for i in asked])
    return totals.performance()


def _order(count: int, batch_size: int, steps: int, seed: int) -> list[list[int]]:
    """Indices of the rows of each step: shuffled passes over the data."""
    shuffler = random.Random(seed)
    drawn: list[int] = []
    while len(drawn) < steps * batch_size:
        one = list(range(count))
        shuffler.shuffle(one)
        drawn += one
    return [drawn[i * batch_size : (i + 1) * batch_size] for i in range(steps)]
