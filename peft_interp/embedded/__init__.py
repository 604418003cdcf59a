"""A small English language model and two small labelled data sets that ship with the package.

They make the examples and tests run on a machine without a network. What the model can and cannot carry stands in its
card, `embedded/model/README.md`; the data sets are described in `embedded/data/README.md`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_interp.text.verbalizer import Verbalizer

if TYPE_CHECKING:
    from datasets import DatasetDict
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase

MODEL_PATH = str(Path(__file__).parent / "model")
_DATA_PATH = Path(__file__).parent / "data"
_SPLITS = ("train", "validation", "test")

TASKS = {
    "sentiment": Verbalizer("{prompt} {text} It was", ("terrible", "great")),
    "topic": Verbalizer("{prompt} {text} It was", ("world", "sports", "business", "technology")),
}


def load_model(**options: Any) -> GPT2LMHeadModel:
    """The embedded causal LM in fp32, in evaluation mode; `options` go to `from_pretrained`."""
    import torch
    from transformers import GPT2LMHeadModel

    return GPT2LMHeadModel.from_pretrained(MODEL_PATH, **{"dtype": torch.float32, **options})


def load_tokenizer() -> PreTrainedTokenizerBase:
    """Its tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MODEL_PATH)


def load_data(task: str) -> DatasetDict:
    """An embedded data set as a `datasets.DatasetDict` with columns `sentence` and `label`.

    Args:
        task: "sentiment" (0 negative, 1 positive) or "topic" (0 world, 1 sports, 2 business, 3 technology).

    Raises:
        ValueError: for another name.
    """
    from datasets import Dataset, DatasetDict

    if task not in TASKS:
        raise ValueError(f"`task={task!r}` is not embedded; use one of {', '.join(TASKS)}.")
    files = {split: (_DATA_PATH / task / f"{split}.jsonl").read_text(encoding="utf-8") for split in _SPLITS}
    return DatasetDict(
        {split: Dataset.from_list([json.loads(line) for line in text.splitlines()]) for split, text in files.items()}
    )
