"""`PromptPolicy`: a frozen language model's features -> a small trained head -> Q-values of the next prompt token.

RLPrompt (arXiv 2205.12548): one hidden layer of 2,048 with ReLU between the model and its own frozen language-model
head, initialised so small that all Q-values start near 0. The policy starts from the BOS (or EOS) token.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from peft_interp.inference.compat import cache_of, with_cache
from peft_interp.inference.eval_mode import eval_mode, lasting_tensors
from peft_interp.inference.head import nowhere, tapped_head
from peft_interp.rl.soft_q import polyak_update
from peft_interp.text.tokenization import named_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def prompt_noise(seed: int, step: int, count: int, length: int) -> Tensor:
    """(count, length) float64 in [0, 1): the random numbers of the prompts 0 to count - 1 of a step."""
    rows = [np.random.default_rng((seed, step, index)).random(length) for index in range(count)]
    return torch.from_numpy(np.stack(rows))


def example_places(total: int, size: int | None, seed: int, step: int) -> tuple[int, ...] | None:
    """Which examples a step uses: parts of a permutation that is drawn anew in every epoch; None for all of them."""
    if size is None or size >= total:
        return None
    parts = math.ceil(total / size)
    epoch, part = divmod(step, parts)
    order = np.random.default_rng((seed, epoch)).permutation(total).tolist()
    return tuple(sorted(order[part * size : (part + 1) * size]))


def filtered_probs(q: Tensor, top_k: int | None = None, top_p: float = 1.0, temperature: float = 1.0) -> Tensor:
    """The distribution a token is drawn from.

    Args:
        q: (batch, actions) Q-values, -inf for actions that may not be taken.
        top_k: only this many best actions; None or 0 for all.
        top_p: only the smallest set of best actions with at least this much probability, in (0, 1].
        temperature: > 0; below 1 sharpens.

    Returns:
        (batch, actions), rows sum to one; float64.
    """
    scores = q.double() / temperature
    if top_k and top_k < scores.shape[-1]:
        least = scores.topk(top_k, dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    probs = scores.softmax(-1)
    if top_p < 1.0:
        ordered, order = probs.sort(dim=-1, descending=True)
        outside = ordered.cumsum(-1) - ordered >= top_p  # the mass before an action already suffices
        probs = probs.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), 0.0)
        probs = probs / probs.sum(-1, keepdim=True)
    return probs


def draw(probs: Tensor, noise: Tensor) -> Tensor:
    """(batch,) actions: the inverse of the cumulative distribution `probs` (batch, actions) at `noise` (batch,)."""
    cumulative = probs.double().cumsum(-1)
    places = noise.to(cumulative).unsqueeze(-1) * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, places, right=True).squeeze(-1)
    possible = probs > 0
    last = possible.shape[-1] - 1 - possible.flip(-1).int().argmax(-1)  # rounding must not draw what cannot be drawn
    return torch.minimum(drawn, last)


INITIAL_GAIN, INITIAL_BIAS = 1e-4, -1e-4


@dataclass(frozen=True)
class Choice:
    """How tokens are chosen from Q-values.

    Attributes:
        top_k, top_p, temperature: as `filtered_probs`.
        fluency_top_n: only this many of the raw language model's likeliest (allowed) tokens; None for no such mask.
    """

    top_k: int | None = None
    top_p: float = 1.0
    temperature: float = 1.0
    fluency_top_n: int | None = None


class PromptPolicy(nn.Module):
    """Q-values over a language model's vocabulary; only `head` is trained.

    The language model belongs to the caller: it is not registered here, not written to, and not saved. `target_head` is
    the slowly following copy of the losses; it is part of the state but takes no gradient.

    Args:
        language_model: a transformers causal LM.
        allowed: (vocabulary,) bool, the tokens a prompt may use.
        hidden_size: width of the head's hidden layer.

    Raises:
        ValueError: a model without a language-model head, or without a BOS or EOS token to start from.
    """

    def __init__(self, language_model: PreTrainedModel, allowed: Tensor, hidden_size: int = 2048) -> None:
        super().__init__()
        output = getattr(language_model, "get_output_embeddings", lambda: None)()
        if output is None or not hasattr(language_model, "prepare_inputs_for_generation"):
            raise ValueError(
                f"{type(language_model).__name__} cannot be the policy: it is no causal language model. Pass one as "
                "`policy_model`, with its tokenizer as `policy_tokenizer`."
            )
        start = named_token_ids(language_model.config, ("bos",)) or named_token_ids(language_model.config, ("eos",))
        if not start:
            raise ValueError("the policy's language model names neither a BOS nor an EOS token to start from.")
        self._language_model = [language_model]
        self.start_token_id = start[0]
        width = output.weight.shape[1]
        self._allowed = nn.functional.pad(allowed, (0, max(0, output.weight.shape[0] - len(allowed))))
        self._allowed = self._allowed[: output.weight.shape[0]]
        first, second = nn.Linear(width, hidden_size), nn.Linear(hidden_size, width)
        self.head = nn.Sequential(first, nn.ReLU(), second)
        for layer in (first, second):
            nn.init.xavier_uniform_(layer.weight, gain=INITIAL_GAIN)
            nn.init.constant_(layer.bias, INITIAL_BIAS)
        self.target_head = copy.deepcopy(self.head).requires_grad_(False)

    @property
    def language_model(self) -> PreTrainedModel:
        """The frozen language model."""
        return self._language_model[0]

    @property
    def action_count(self) -> int:
        """How many tokens may be chosen."""
        return int(self._allowed.sum())

    def update_target(self, rate: float) -> None:
        """One step of Polyak averaging."""
        polyak_update(self.target_head, self.head, rate)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Q-values along given prompts.

        Args:
            ids: (batch, prompt).

        Returns:
            Q-values of the head and of the target head, both (batch, prompt, vocabulary), -inf where not allowed; row t
            is the choice of token t. Only the head's parameters get a gradient.
        """
        features = self._features(ids)
        with torch.no_grad():
            target = self._q(self.target_head, features)
        return self._q(self.head, features), target

    @torch.no_grad()
    def sample(self, noise: Tensor, choice: Choice) -> Tensor:
        """Prompts (count, prompt), drawn token by token from random numbers `noise` (count, prompt) in [0, 1)."""
        return self._decode(len(noise), noise.shape[1], choice, noise)

    @torch.no_grad()
    def greedy(self, length: int, choice: Choice | None = None) -> list[int]:
        """The prompt of highest Q at every step; of `choice`, only the fluency mask counts."""
        ids: list[int] = self._decode(1, length, choice or Choice(), None)[0].tolist()
        return ids

    def _decode(self, count: int, length: int, choice: Choice, noise: Tensor | None) -> Tensor:
        model, cache = self.language_model, None
        token = torch.full((count,), self.start_token_id, dtype=torch.long, device=model.device)
        chosen = []
        wanted = None if choice.fluency_top_n else nowhere(token)  # the model's own logits
        with eval_mode(model):
            for step in range(length):
                with tapped_head(model, wanted) as tap:
                    mask = torch.ones(count, step + 1, dtype=torch.long, device=model.device)
                    output = model(
                        input_ids=token.unsqueeze(1), attention_mask=mask, use_cache=True, **with_cache(model, cache)
                    )
                assert tap.states is not None
                cache = cache_of(output)
                q = self._q(self.head, tap.states[:, -1])  # (count, vocabulary)
                if choice.fluency_top_n:
                    q = q.masked_fill(~self._likely(output.logits[:, -1], choice.fluency_top_n), -torch.inf)
                if noise is None:
                    token = q.argmax(-1)
                else:
                    probs = filtered_probs(q, choice.top_k, choice.top_p, choice.temperature)
                    token = draw(probs, noise[:, step].to(probs.device))
                chosen.append(token)
        return torch.stack(chosen, dim=1)

    def _likely(self, logits: Tensor, count: int) -> Tensor:
        """(batch, vocabulary) bool: the model's `count` likeliest among the allowed tokens."""
        scores = logits.float().masked_fill(~self._mask(logits), -torch.inf)
        top = scores.topk(min(count, scores.shape[-1]), dim=-1).indices
        return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, top, True) & self._mask(logits)

    @torch.no_grad()
    def _features(self, ids: Tensor) -> Tensor:
        """(batch, prompt, dim) states that enter the language model's head before each prompt token."""
        model = self.language_model
        ids = ids.to(model.device)
        start = torch.full_like(ids[:, :1], self.start_token_id)
        with eval_mode(model), tapped_head(model, nowhere(ids)) as tap:  # the model's own logits are not needed
            model(
                input_ids=torch.cat((start, ids[:, :-1]), dim=1), attention_mask=torch.ones_like(ids), use_cache=False
            )
        assert tap.states is not None
        return tap.states

    def _q(self, head: nn.Module, features: Tensor) -> Tensor:
        """(..., vocabulary) through `head` and the frozen language-model head; fp32."""
        output = self.language_model.get_output_embeddings()
        first: Any = self.head[0]
        states = head(features.to(first.weight.device, first.weight.dtype))
        bias = getattr(output, "bias", None)
        weight = output.weight.detach()
        q = nn.functional.linear(states.to(weight.dtype), weight, None if bias is None else bias.detach()).float()
        return q.masked_fill(~self._mask(q), -torch.inf)

    def _mask(self, reference: Tensor) -> Tensor:
        with lasting_tensors():
            self._allowed = self._allowed.to(reference.device)
        return self._allowed
