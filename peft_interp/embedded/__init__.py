"""A small English language model and two small labelled data sets that ship with the package, and two real models.

They make the examples and tests run on a machine without a network. What the model can and cannot carry stands in its
card, `embedded/model/README.md`; the data sets are described in `embedded/data/README.md`. The real models, SmolLM2 and
the sentence encoder all-MiniLM-L6-v2, come as wheels of their own (docs/real-models.md).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from peft_interp.embedded.encoder import SentenceEncoder, load_encoder
from peft_interp.embedded.smollm2 import SMOLLM2, smollm2_folder
from peft_interp.embedded.smollm2 import WHEEL as SMOLLM2_WHEEL
from peft_interp.text.verbalizer import Verbalizer

if TYPE_CHECKING:
    from datasets import DatasetDict
    from transformers import GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "EMBEDDED",
    "MODEL_PATH",
    "SMOLLM2",
    "TASKS",
    "SentenceEncoder",
    "has_smollm2",
    "load_data",
    "load_encoder",
    "load_model",
    "load_tokenizer",
    "resolve",
]
EMBEDDED = "embedded"
"""The name that `resolve` and the scripts know the model in the package by."""
MODEL_PATH = str(Path(__file__).parent / "model")
"""Its folder, for `from_pretrained`."""
_DATA_PATH = Path(__file__).parent / "data"
_SPLITS = ("train", "validation", "test")

TASKS = {
    "sentiment": Verbalizer("{prompt} {text} It was", ("terrible", "great")),
    "topic": Verbalizer("{prompt} {text} It was", ("world", "sports", "business", "technology")),
}
"""Template and label words of each data set in the package, by its name."""


def resolve(name: str) -> str:
    """What to give to `from_pretrained` for a model's name: the one place that knows the package's own names.

    Args:
        name: "embedded", "smollm2" (unpacked into the cache at the first call), or a hub name or folder, which is
            returned as it is; a folder of such a name is meant by "./smollm2".

    Raises:
        ModuleNotFoundError: SmolLM2 is wanted and not installed.
        ValueError: its wheel is damaged or of another version.
        OSError: there is no room to unpack it.
    """
    if name == EMBEDDED:
        return MODEL_PATH
    return str(smollm2_folder()) if name == SMOLLM2 else name


def has_smollm2() -> bool:
    """Whether SmolLM2 is installed, so that `resolve("smollm2")` can work."""
    return SMOLLM2_WHEEL.is_installed()


@overload
def load_model(name: Literal["embedded"] = ..., **options: Any) -> GPT2LMHeadModel:
    """The model in the package."""


@overload
def load_model(name: str, **options: Any) -> PreTrainedModel:
    """Another one by its name."""


def load_model(name: str = EMBEDDED, **options: Any) -> PreTrainedModel:
    """A causal LM in evaluation mode, in fp32 unless `options` say another `dtype`.

    Args:
        name: "embedded", "smollm2", a hub name or a folder.
        **options: go to `from_pretrained`.

    Raises:
        ModuleNotFoundError, ValueError, OSError: as `resolve`.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(resolve(name), **{"dtype": torch.float32, **options})
    return model


def load_tokenizer(name: str = EMBEDDED) -> PreTrainedTokenizerBase:
    """The tokenizer of a model: "embedded", "smollm2", a hub name or a folder."""
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(resolve(name))
    return tokenizer


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
