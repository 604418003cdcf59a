"""What each token of a prompt's text does: leave it out, and see how far the answers move."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from tqdm.auto import tqdm

from peft_interp.metrics.differentials import kl_divergence
from peft_interp.metrics.results import TokenEffect
from peft_interp.metrics.sides import Bench
from peft_interp.metrics.text_rows import PlacedRow, Row, text_behind


def measure_token_effects(
    bench: Bench, rows: Sequence[Row], prompt_ids: Sequence[int], bar: tqdm
) -> tuple[TokenEffect, ...]:
    """KL(with || without) of the answers and the rise of the task loss, for each token of the text.

    Args:
        bench: the text's side.
        rows: examples.
        prompt_ids: the text's ids.
        bar: moves by one for each row and variant.

    Returns:
        One effect for each id. A filler has a KL near 0; where the loss increase is below 0 the token does harm.
    """
    whole = bench.with_text(rows, _text(bench, prompt_ids), prompt_ids)
    shorter = [[*prompt_ids[:i], *prompt_ids[i + 1 :]] for i in range(len(prompt_ids))]
    variants = [bench.with_text(rows, _text(bench, ids), ids) for ids in shorter]
    targets = [
        [j for j in bench.wanted(row, "answers") if j in bench.predicted(row, placed)]
        for row, placed in zip(rows, whole, strict=True)
    ]
    sums = [_Sums() for _ in prompt_ids]
    for batch in bench.batches(whole, targets):
        batch = [i for i in batch if targets[i]]
        if not batch:
            continue
        logits = bench.text.logits([bench.question(rows[i], whole[i], targets[i]) for i in batch])
        log_probs = logits.float().log_softmax(-1)
        bar.update(len(batch))
        for total, placed in zip(sums, variants, strict=True):
            _add_variant(bench, total, rows, placed, targets, batch, log_probs)
            bar.update(len(batch))
    return tuple(total.effect() for total in sums)


class _Sums:
    """Sums of one token's effect over labelled positions."""

    def __init__(self) -> None:
        self.count, self.kl, self.loss = 0, 0.0, 0.0

    def effect(self) -> TokenEffect:
        return TokenEffect(self.kl / max(1, self.count), self.loss / max(1, self.count))


def _add_variant(
    bench: Bench,
    total: _Sums,
    rows: Sequence[Row],
    placed: Sequence[PlacedRow],
    targets: Sequence[Sequence[int]],
    batch: Sequence[int],
    log_probs: Tensor,
) -> None:
    """One shorter text on one batch, at the labels that both texts predict."""
    known = {i: bench.predicted(rows[i], placed[i]) for i in batch}
    flat = [(i, j) for i in batch for j in targets[i]]
    both = [n for n, (i, j) in enumerate(flat) if j in known[i]]
    chosen = {i: [j for j in targets[i] if j in known[i]] for i in batch}
    asked = [i for i in batch if chosen[i]]
    if not asked:
        return
    logits = bench.text.logits([bench.question(rows[i], placed[i], chosen[i]) for i in asked])
    others, before = logits.float().log_softmax(-1), log_probs[both]
    gold = before.new_tensor([rows[i].labels[j] for i in asked for j in chosen[i]]).long()
    total.count += len(gold)
    total.kl += kl_divergence(before, others).double().sum().item()
    rise = nn.functional.nll_loss(others, gold, reduction="sum") - nn.functional.nll_loss(before, gold, reduction="sum")
    total.loss += rise.item()


def _text(bench: Bench, ids: Sequence[int]) -> str:
    if not ids:
        return ""
    if bench.position == "end":
        return text_behind(bench.tokenizer, ids)
    return str(bench.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))
