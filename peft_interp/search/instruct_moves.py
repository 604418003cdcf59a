"""What an instruct model is asked for, in its own chat template, to make prompts that say what they do.

Sources: instruction induction from examples (arXiv 2205.10782), also the start of APE (2211.01910); rewriting by the
model (APE's resampling). Each request carries the words that the answer begins with, which small models need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from torch import Tensor

from peft_interp.inference.batching import drawing_batches
from peft_interp.search.language_moves import continue_from, sentence_ends
from peft_interp.text.token_filter import LINE_END
from peft_interp.text.tokenization import decode_after, encode, vocabulary_texts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LONGEST_INPUT = 160  # characters of an example's text that a request shows
SHOWN = 4  # examples in a request
_ASK = ("What is", "Decide", "Say whether", "Classify", "Tell", "Choose", "Is this", "Read", "Name")


@dataclass(frozen=True)
class Request:
    """One thing asked of an instruct model.

    Attributes:
        text: the user's turn.
        opening: how the answer begins; it is no part of the prompt.
        begun: first words of the prompt itself; "" leaves them to the model.
    """

    text: str
    opening: str = ""
    begun: str = ""


class InstructModel:
    """A causal LM that is asked in its chat template and answers in text, whatever its vocabulary.

    Args:
        model: the causal LM.
        tokenizer: its tokenizer, with a chat template.
        allowed: (vocabulary,) bool, the tokens that it may answer with.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, allowed: Tensor) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.forbidden = (~allowed).nonzero().flatten().tolist()
        self.ends = [i for i in sentence_ends(vocabulary_texts(tokenizer, len(allowed))) if allowed[i]]
        self._drawing = drawing_batches()

    def answers(
        self, requests: Sequence[Request], most: int, seed: int, temperature: float = 1.0, top_p: float = 0.95
    ) -> list[str]:
        """The first sentence of each answer; requests whose answer has none are left out.

        Args:
            requests: what is asked.
            most: tokens of an answer at most, its own tokens.
            seed, temperature, top_p: as for `continue_from`.
        """
        turns = [[{"role": "user", "content": request.text}] for request in requests]
        opened = [f"{request.opening}{request.begun}".rstrip() for request in requests]
        asked = [
            str(self.tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)) + opening
            for turn, opening in zip(turns, opened, strict=True)
        ]
        drawn = continue_from(
            self.model,
            [encode(self.tokenizer, text) for text in asked],
            most,
            self.forbidden,
            self.ends,
            seed=seed,
            temperature=temperature,
            top_p=top_p,
            batches=self._drawing,
        )
        written = [
            first_sentence(request.begun + decode_after(self.tokenizer, ids))
            for request, ids in zip(requests, drawn, strict=True)
        ]
        return [text for text in written if text]


def induction(examples: Sequence[tuple[str, str]], rng: Random) -> Request:
    """Asks for the instruction that some inputs were answered by."""
    shown = [f"Input: {_short(text)}\nAnswer: {answer.strip()}" for text, answer in _some(examples, rng)]
    asked = "Somebody got an instruction and answered these inputs with it.\n\n" + "\n\n".join(shown)
    asked += "\n\nWhat was the instruction? One short sentence."
    return Request(asked, "The instruction was: ", rng.choice(_ASK))


def ask_for_labels(words: Sequence[str], examples: Sequence[tuple[str, str]], rng: Random) -> Request:
    """Asks for a question that names the classes."""
    kinds = listed(words)
    shown = "\n".join(f"- {_short(text)}" for text, _ in _some(examples, rng))
    asked = f"Write one short question about a text. The answers to it are {kinds}. Some of the texts:\n{shown}"
    return Request(asked, "Question: ", rng.choice(_ASK))


def paraphrase(prompt: str) -> Request:
    """Asks for the same in other words."""
    return Request(f"Say this in other words, in one short sentence: {prompt}", "In other words: ")


def shortened(prompt: str) -> Request:
    """Asks for the same in fewer words."""
    return Request(f"Make this shorter and keep its meaning: {prompt}", "Shorter: ")


def first_sentence(text: str) -> str:
    """An answer up to the end of its first sentence, without quotation marks around it; "" where none ends.

    Args:
        text: what the model wrote, its first line counts.
    """
    line = text.strip().strip("\"'`* ").split("\n")[0]
    for place, sign in enumerate(line):
        if sign in "?!:" or (sign == "." and line[place + 1 : place + 2] in ("", " ", '"')):
            return line[: place + 1].strip("\"'` ")
    return ""


def demonstration(examples: Sequence[tuple[str, str]], each: int, rng: Random) -> str:
    """Some texts with their answers, one after the other, as many of every answer, in a drawn order: a few-shot prompt.

    They are drawn from the shorter half of an answer's texts, as a person would choose them.

    Args:
        examples: texts, in the form in which the model is asked for the answer, and their answers.
        each: lines of an answer.
        rng: draws them.
    """
    shown: list[tuple[str, str]] = []
    for answer in dict.fromkeys(answer for _, answer in examples):
        own = sorted((text for text, of in examples if of == answer), key=len)
        half = own[: max(each, -(-len(own) // 2))]
        shown += [(text, answer) for text in rng.sample(half, min(each, len(half)))]
    rng.shuffle(shown)
    return "".join(f"{text.strip()} {answer.strip()}{LINE_END}" for text, answer in shown)


def _some(examples: Sequence[tuple[str, str]], rng: Random) -> list[tuple[str, str]]:
    """A few examples, of as many different answers as there are."""
    order = rng.sample(list(examples), len(examples))
    seen: dict[str, int] = {}
    ranked = []
    for example in order:
        seen[example[1]] = seen.get(example[1], 0) + 1
        ranked.append((seen[example[1]], example))
    ranked.sort(key=lambda pair: pair[0])
    return [example for _, example in ranked[:SHOWN]]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_INPUT else f"{line[:LONGEST_INPUT].rsplit(' ', 1)[0]} ..."


def listed(words: Sequence[str]) -> str:
    """Label words as a choice: "positive, negative or neutral"."""
    words = [word.strip() for word in words]
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else "".join(words)
