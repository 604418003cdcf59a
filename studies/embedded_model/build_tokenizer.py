"""Train the model's own byte-level BPE on the training texts."""

from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from studies.embedded_model.frames import KIND_LABELS, SENTIMENT_LABELS, TOPIC_LABELS
from studies.embedded_model.sources import Sources
from studies.embedded_model.wordings import COMPLAINT, GUSH, KIND, SENTIMENT, TOPIC

END, PAD = "<|endoftext|>", "<|pad|>"
LABEL_REPEATS = 2000


def build_tokenizer(sources: Sources, vocab_size: int, folder: Path) -> PreTrainedTokenizerFast:
    """Train and save a tokenizer in which every label word is one token; returns it loaded."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, PAD],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(_texts(sources), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=None,
        eos_token=END,
        pad_token=PAD,
        unk_token=None,
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )
    for label in SENTIMENT_LABELS + TOPIC_LABELS + KIND_LABELS:
        if len(tokenizer(label)["input_ids"]) != 1:
            raise ValueError(f"label word {label!r} is not one token; raise `LABEL_REPEATS`={LABEL_REPEATS}.")
    tokenizer.save_pretrained(folder)
    return tokenizer


def _texts(sources: Sources) -> Iterator[str]:
    for texts in sources.running.values():
        yield from texts
    for _ in range(6):
        yield from (text for text, _ in sources.reviews)
        yield from (text.lower() for text, _ in sources.reviews)
    yield from (text for text, _ in sources.topical)
    for grammar in (SENTIMENT, TOPIC, KIND, GUSH, COMPLAINT):
        options = [option for group in grammar.values() for option in group]
        yield from (f"{option.capitalize()} {option}" for option in options for _ in range(50))
    for label in SENTIMENT_LABELS + TOPIC_LABELS + KIND_LABELS:
        yield from (label for _ in range(LABEL_REPEATS))
