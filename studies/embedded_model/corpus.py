"""Training documents, shard by shard: the same seed and shard number give the same documents."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from studies.embedded_model.frames import Frame, FrameWriter
from studies.embedded_model.sources import Sources, detokenise

END = "<|endoftext|>"

# Share of documents (not of tokens) by kind. More language in the middle of a run.
RUNNING_PHASES = ((9, 0.17), (18, 0.28), (10**9, 0.20))  # share of running text in the shards before the number
SHARE_TOPIC = 0.22  # of the frames
SHARE_KIND = 0.06  # of the frames
SHARE_MARKED = 0.2  # of documents that begin with the end mark
RUNNING_SHARES = {"stories": 0.18, "encyclopaedia": 0.25, "maths": 0.08, "films": 0.39, "prompts": 0.10}
TREEBANK = ("encyclopaedia", "films")  # texts with blanks before the marks


@dataclass(frozen=True)
class Document:
    """Token ids, and the position of the label token, or -1 where there is none."""

    ids: list[int]
    label_at: int


class Corpus:
    """Writes documents from the sources with a tokenizer."""

    def __init__(self, sources: Sources, tokenizer: PreTrainedTokenizerFast, seed: int, max_length: int) -> None:
        self.sources = sources
        self.tokenizer = tokenizer
        self.seed = seed
        self.max_length = max_length
        self.end_id = tokenizer.get_vocab()[END]
        self.writer = FrameWriter(sources, self._random_words)
        self.plain_ids = [i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids]

    def shard(self, number: int, documents: int) -> list[Document]:
        """Draw one shard of documents, tokenised together."""
        rng = random.Random(f"{self.seed}/{number}")
        plain: list[str] = []
        frames: list[Frame] = []
        running_share = next(share for end, share in RUNNING_PHASES if number < end)
        for _ in range(documents):
            if rng.random() < running_share:
                plain.append(self._running(rng))
            else:
                frames.append(self._frame(rng))
        made = list(self._tokenise_frames([f.head for f in frames], [f.label for f in frames]))
        made += list(self._tokenise_running(plain, rng))
        rng.shuffle(made)
        return [self._marked(document) if rng.random() < SHARE_MARKED else document for document in made]

    def _marked(self, document: Document) -> Document:
        """The document after `<|endoftext|>`, so that the model can also be read, and begin to write, from there."""
        ids = [self.end_id, *document.ids][: self.max_length]
        return Document(ids, document.label_at + 1 if document.label_at >= 0 else -1)

    def _frame(self, rng: random.Random) -> Frame:
        draw = rng.random()
        if draw < SHARE_TOPIC:
            return self.writer.topic(rng)
        return self.writer.kind(rng) if draw < SHARE_TOPIC + SHARE_KIND else self.writer.sentiment(rng)

    def _running(self, rng: random.Random) -> str:
        """A running text, in one of several spellings: what is rated later is often in lower case."""
        name = rng.choices(list(RUNNING_SHARES), list(RUNNING_SHARES.values()))[0]
        text = rng.choice(self.sources.running[name])
        if name in TREEBANK and rng.random() < 0.5:
            text = detokenise(text)
        return text.lower() if rng.random() < 0.3 else text

    def _tokenise_frames(self, heads: list[str], labels: list[str]) -> Iterator[Document]:
        for ids, label in zip(self.tokenizer(heads)["input_ids"], labels, strict=True):
            label_id = self.tokenizer.encode(label)[0]
            if len(ids) + 3 <= self.max_length:
                yield Document([*ids, label_id, self.end_id], len(ids))

    def _tokenise_running(self, texts: list[str], rng: random.Random) -> Iterator[Document]:
        """One window of each text: from its start half of the time, else from a random token."""
        if not texts:
            return
        for ids in self.tokenizer(texts)["input_ids"]:
            ids = [*ids, self.end_id]
            last_start = max(0, len(ids) - self.max_length)
            start = rng.randint(0, last_start) if rng.random() < 0.6 else 0
            yield Document(ids[start : start + self.max_length], -1)

    def _random_words(self, rng: random.Random, count: int) -> str:
        return str(self.tokenizer.decode(rng.choices(self.plain_ids, k=count))).replace("\ufffd", "").strip()
