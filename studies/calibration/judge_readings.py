"""What a judge reads off the study's texts, kept on disk: measuring takes an hour on busy cores, fitting none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peft_interp.metrics.readability_judge import read_texts

BLOCK = 256


def read_all(
    model: Any, tokenizer: Any, name: str, texts: Sequence[str], start: str, layers: Sequence[int], folder: Path
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """`read_texts`, block by block, each kept in a file.

    Args:
        model: the judge.
        tokenizer: its tokenizer.
        name: of the judge, for the files.
        texts: in any order; every block of them is found again by its texts.
        start: as for `read_texts`.
        layers: as for `read_texts`.
        folder: for the files, outside the repository.
    """
    folder.mkdir(parents=True, exist_ok=True)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # texts of like length in one block
    found: list[Any] = [None] * len(texts)
    for begin in range(0, len(order), BLOCK):
        part = order[begin : begin + BLOCK]
        key = hashlib.sha256("\0".join([name, start, str(list(layers)), *(texts[i] for i in part)]).encode())
        path = folder / f"{name}-{key.hexdigest()[:20]}.npz"
        if not path.is_file():
            read = read_texts(model, tokenizer, [texts[i] for i in part], start, layers)
            nlls, states = zip(*read, strict=True)
            half = path.with_suffix(".part.npz")
            np.savez(half, nll=torch.cat(nlls), length=[len(n) for n in nlls], states=torch.stack(states).half())
            half.replace(path)
        kept = np.load(path)
        split = torch.from_numpy(kept["nll"]).split(kept["length"].tolist())
        for i, nll, state in zip(part, split, torch.from_numpy(kept["states"]).float(), strict=True):
            found[i] = (nll, state)
    return found
