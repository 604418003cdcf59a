"""Candidates of a prompt search judged per second, on examples of unequal length as real ones are."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.scoring.setting import (
    LABEL_WORDS,
    POSITIONS,
    Setting,
    encoded_rows,
    language_model,
    random_prompts,
    timed,
)
from benchmarks.timing import compare, interleave
from peft_interp.scoring.task_scorer import TaskScorer
from peft_interp.search.prompt_features import extract_features
from peft_interp.search.surrogate import fit_surrogate

PROPOSALS = 8  # made for each candidate that is scored, as in `PromptSearchConfig`
KNOWN = 200  # scored prompts that the guess is learned from


def unequal_texts(setting: Setting) -> list[list[int]]:
    """Texts of 1/5 to 9/5 of the setting's length, evenly spread; their mean is the setting's."""
    generator = torch.Generator().manual_seed(2)
    lengths = torch.linspace(setting.text / 5, setting.text * 9 / 5, setting.examples).round().long().tolist()
    return [torch.randint(0, setting.vocabulary - 1, (n,), generator=generator).tolist() for n in lengths]


@torch.no_grad()
def padded_passes(model: Any, texts: list[list[int]], prompts: Tensor, position: str) -> Tensor:
    """One padded forward pass of all examples for each prompt, with all logits: (prompts, examples, labels)."""
    found = []
    for prompt in prompts.tolist():
        rows = [[*text, *prompt] if position == "end" else [*prompt, *text] for text in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=model.device)
        logits = model(input_ids=ids, attention_mask=mask).logits
        last = logits[torch.arange(len(rows)), mask.sum(1) - 1][:, list(LABEL_WORDS)]
        found.append(last.log_softmax(-1))
    return torch.stack(found)


def candidates(setting: Setting, repetitions: int) -> list[dict[str, Any]]:
    """For both positions: `scored`, ours against padded passes, and `judged`, with the search's learned guess.

    `judged` counts every proposal, eight for each one that is scored: read once without examples, guessed, and the
    best eighth scored. The plain side scores all of them, so that its seconds are eight times those of `scored`.
    """
    model, texts, found = language_model(setting), unequal_texts(setting), []
    gold = torch.arange(len(texts)) % len(LABEL_WORDS)
    rows = [row for text, label in zip(texts, gold, strict=True) for row in _row(text, label)]
    known = torch.randn(KNOWN, setting.width, generator=torch.Generator().manual_seed(3))
    for position in POSITIONS:
        scorer = TaskScorer(model, rows, LABEL_WORDS, position)

        def judged(prompts: Tensor, scorer: TaskScorer = scorer) -> Tensor:
            proposals = random_prompts(replace(setting, prompts=PROPOSALS * setting.prompts), int(prompts[0, 0]))
            guess = fit_surrogate(known, known[:, 0]).guess(extract_features(model, proposals.tolist()).features)
            return scorer.label_log_probs(proposals[guess.topk(setting.prompts).indices])

        def plain(prompts: Tensor, position: str = position) -> Tensor:
            return padded_passes(model, texts, prompts, position)

        ways: dict[str, Callable[[Tensor], Tensor]] = {
            "scored": scorer.label_log_probs,
            "judged": judged,
            "plain": plain,
        }
        sample = random_prompts(setting, 0)
        error = (scorer.label_log_probs(sample) - padded_passes(model, texts, sample, position)).abs().max().item()
        kept = interleave({name: timed(setting, way) for name, way in ways.items()}, repetitions, warmups=0)
        seconds = {name: [seconds for (seconds,) in kept[name]] for name in ways}
        plain_of_all = [PROPOSALS * value for value in seconds["plain"]]
        found.append(
            {
                "position": position,
                "error": error,
                "candidates": setting.prompts,
                "proposals": PROPOSALS * setting.prompts,
                "scored": compare(seconds["scored"], seconds["plain"]),
                "judged": compare(seconds["judged"], plain_of_all),
            }
        )
    return found


def _row(text: list[int], label: Tensor) -> list[dict[str, list[int]]]:
    return encoded_rows(torch.tensor([text]), label.reshape(1))
