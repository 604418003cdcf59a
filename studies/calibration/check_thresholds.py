"""Hold the report's limits on "behaves alike" against prompts that people wrote and that the package has not seen.

    python -m studies.calibration.check_thresholds --data_dir ../shared/data   # five minutes on two idle cores

Every prompt stands in front of the same rows of a task. A pair of different prompts is what a soft prompt and a wrong
reading of it are to each other; a prompt against itself in another precision is what rounding makes of a right reading.
"""

import argparse
import json
import random
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from peft_interp import embedded
from peft_interp.metrics.differentials import kl_divergence, top1_agreement
from peft_interp.report.thresholds import ALIKE_KL, ALIKE_TOP1, UNLIKE_KL, UNLIKE_TOP1, differ
from studies.calibration.choose_prompts import OUTPUT, is_fit, read_human_prompts

PROMPTS, ROWS, PAIRS, ROUNDED = 100, 100, 3000, 30


def unseen_prompts(folder: Path) -> list[str]:
    """Prompts that fit the rules of `choose_prompts` and are not shipped, in a fixed random order."""
    shipped = {json.loads(line)["text"] for line in OUTPUT.read_text(encoding="utf-8").splitlines()}
    texts = {text for source in read_human_prompts(folder).values() for text in source if is_fit(text)} - shipped
    return random.Random(0).sample(sorted(texts), PROMPTS)


@torch.no_grad()
def answers(task: str, prompts: list[str], dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], list[float]]:
    """For each prompt log-probabilities at the answer, (rows, vocabulary), and the accuracy."""
    model: Any = embedded.load_model(dtype=dtype)
    tokenizer, verbalizer = embedded.load_tokenizer(), embedded.TASKS[task]
    rows = embedded.load_data(task)["test"].shuffle(seed=1).select(range(ROWS))
    words, labels = verbalizer.label_token_ids(tokenizer), torch.tensor(rows["label"])
    found, accuracies = [], []
    for prompt in prompts:
        texts = [verbalizer.fill(sentence, prompt) for sentence in rows["sentence"]]
        inputs = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
        hidden = model.transformer(**inputs).last_hidden_state
        last = hidden[torch.arange(ROWS), inputs["attention_mask"].sum(1) - 1]
        found.append(model.lm_head(last).float().log_softmax(-1))
        accuracies.append((found[-1][:, words].argmax(-1) == labels).float().mean().item())
    return found, accuracies


def compared(first: Tensor, second: Tensor) -> tuple[float, float]:
    """Mean KL in nats and the share of equal likeliest tokens."""
    return kl_divergence(first, second).mean().item(), top1_agreement(first, second).float().mean().item()


def check(task: str, prompts: list[str]) -> None:
    """Print how the limits sort the pairs of one task."""
    found, accuracies = answers(task, prompts)
    rounded, _ = answers(task, prompts[:ROUNDED], torch.bfloat16)
    noise = max(compared(*pair)[0] for pair in zip(found, rounded, strict=False))
    pairs = random.Random(0).sample(list(permutations(range(PROMPTS), 2)), PAIRS)
    alike, unlike, moved, missed, largest = 0, 0, 0, 0, 0.0
    for i, j in pairs:
        kl, top1 = compared(found[i], found[j])
        is_alike, is_unlike = kl <= ALIKE_KL and top1 >= ALIKE_TOP1, kl > UNLIKE_KL or top1 < UNLIKE_TOP1
        is_moved = differ(accuracies[i], accuracies[j], ROWS)
        alike, unlike, moved = alike + is_alike, unlike + is_unlike, moved + is_moved
        missed += is_moved and not is_unlike
        largest = max(largest, 0.0 if is_unlike else abs(accuracies[i] - accuracies[j]))
    print(f"{task}: KL of a prompt in bf16 against fp32: at most {noise:.1e}")
    print(f"  of {PAIRS} pairs: {alike / PAIRS:.1%} alike, {unlike / PAIRS:.1%} unlike")
    print(f"  accuracy differs beyond the noise in {moved / PAIRS:.1%}, {missed} of them not called unlike")
    print(f"  largest difference of accuracies not called unlike: {largest:.2f}")


def main() -> None:
    """Both embedded tasks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, default=Path("../shared/data"))
    prompts = unseen_prompts(parser.parse_args().data_dir / "human_prompts")
    for task in embedded.TASKS:
        check(task, prompts)


if __name__ == "__main__":
    main()
