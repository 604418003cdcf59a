"""Pack documents into rows; a document sees only itself and starts at position 0, as at evaluation."""

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from studies.embedded_model.corpus import Document

KEEP_RUNNING = 1.0
KEEP_FRAME = 0.4


@dataclass(frozen=True)
class Batch:
    """One training batch of packed rows.

    Attributes:
        ids: token ids, (rows, length).
        positions: position of each token in its own document, (rows, length).
        mask: True where a token may look, (rows, 1, length, length).
        lm_at: flat indices of tokens whose successor counts in the language loss.
        label_at: flat indices of the tokens whose successor is a label word.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    lm_at: Tensor
    label_at: Tensor


def pack(documents: list[Document], length: int) -> list[list[Document]]:
    """Fill rows of `length` tokens, each document into the first of a few open rows with room."""
    rows: list[list[Document]] = []
    open_rows: list[tuple[int, list[Document]]] = []
    for document in documents:
        size = len(document.ids)
        for index, (room, row) in enumerate(open_rows):
            if size <= room:
                row.append(document)
                open_rows[index] = (room - size, row)
                break
        else:
            row = [document]
            rows.append(row)
            open_rows.append((length - size, row))
            if len(open_rows) > 24:
                open_rows.remove(min(open_rows, key=lambda entry: entry[0]))
    return rows


def collate(rows: list[list[Document]], length: int, pad_id: int, rng: random.Random) -> Batch:
    """Turn packed rows into tensors, and draw which tokens count in the language loss (the head is costly)."""
    ids = torch.full((len(rows), length), pad_id)
    positions = torch.zeros(len(rows), length, dtype=torch.long)
    document_of = torch.full((len(rows), length), -1)
    lm_at: list[int] = []
    label_at: list[int] = []
    for index, row in enumerate(rows):
        start = 0
        for number, document in enumerate(row):
            size = len(document.ids)
            ids[index, start : start + size] = torch.tensor(document.ids)
            positions[index, start : start + size] = torch.arange(size)
            document_of[index, start : start + size] = number
            flat = index * length + start
            keep = KEEP_RUNNING if document.label_at < 0 else KEEP_FRAME
            lm_at += [flat + i for i in range(size - 1) if i + 1 != document.label_at and rng.random() < keep]
            if document.label_at >= 0:
                label_at.append(flat + document.label_at - 1)
            start += size
    same = document_of[:, :, None] == document_of[:, None, :]  # (rows, length, length)
    mask = same & torch.ones(length, length, dtype=torch.bool).tril()
    return Batch(ids, positions, mask[:, None], torch.tensor(lm_at), torch.tensor(label_at))
