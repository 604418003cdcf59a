"""Every measure of many texts under one model, and where their NLL lies between human prompts and the same shuffled."""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import mean
from typing import Any

import torch

from peft_interp.metrics.flags import find_flags
from peft_interp.metrics.likelihood import token_nlls
from peft_interp.metrics.readability_metrics import measure_tokens
from peft_interp.metrics.references import reference_levels
from peft_interp.text.tokenization import leading_ids, token_texts

Row = dict[str, float]


def unigram_nll(tokenizer: Any, texts: Iterable[str]) -> list[float]:
    """Per token id, its NLL in nats under add-one smoothed counts in `texts`."""
    counts = Counter(token for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"] for token in ids)
    totals = torch.tensor([counts[i] + 1.0 for i in range(len(tokenizer))])
    return [float(x) for x in -(totals / totals.sum()).log()]


def measure_all(model: Any, tokenizer: Any, sequences: Sequence[list[int]], unigram: Sequence[float]) -> list[Row]:
    """All measures of each sequence of ids, with `nll_position`, `slor` (Pauls & Klein 2012) and `flagged` (0 or 1)."""
    rows = []
    for ids, nlls in zip(sequences, token_nlls(model, sequences, leading_ids(tokenizer)), strict=True):
        row = measure_tokens(tokenizer, ids, nlls)
        row["nll_position"] = reference_levels(model, tokenizer, len(ids)).nll_position(row["nll"])
        row["slor"] = mean(unigram[i] for i in ids[1:]) - row["nll"]
        text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        row["flagged"] = float(any(flag.unreadable for flag in find_flags(text, token_texts(tokenizer, ids))))
        rows.append(row)
    return rows
