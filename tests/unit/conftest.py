"""Small tokenizers of the two kinds in use, trained on a few sentences."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SENTENCES = (
    "The film was great and the plot was terrible .",
    "It was a dull, dull movie. It was great!",
    "Review : the acting is bad but the music is good",
    "I loved the film and its ending",
    "Great GREAT Terrible TERRIBLE greatness",
)
BYTES = [f"<0x{value:02X}>" for value in range(256)]


@pytest.fixture(scope="session")
def byte_tokenizer() -> Any:
    """GPT-2's kind: byte-level BPE, blanks belong to the following word, no BOS in front."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    settings = {"vocab_size": 400, "special_tokens": ["<|endoftext|>"], "show_progress": False}
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(SENTENCES * 20, trainers.BpeTrainer(initial_alphabet=alphabet, **settings))
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<|endoftext|>", eos_token="<|endoftext|>")


@pytest.fixture(scope="session")
def piece_tokenizer() -> Any:
    """Llama-2's kind: sentencepiece BPE, a blank is put in front of every text, `<s>` in front of every row."""
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    settings = {"vocab_size": 500, "special_tokens": ["<unk>", "<s>", "</s>"], "show_progress": False}
    core.train_from_iterator(SENTENCES * 20, trainers.BpeTrainer(**settings))
    core.add_tokens(BYTES)
    core.pre_tokenizer = None
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = decoders.Strip(" ", 1, 0)
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip])
    core.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


@pytest.fixture(params=["byte", "piece"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    """Both, one after the other."""
    return request.getfixturevalue(f"{request.param}_tokenizer")
