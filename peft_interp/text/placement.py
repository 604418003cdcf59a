"""Where the prompt stands in an input: before it, before the answer, or where a row says. Nothing else decides.

Token ids, padded batches, templates and sentences all ask a `Placement`. To add one, add it here: `index` and `columns`
say where in a row it is (of ids, and of a padded batch), the template methods where in a text, the words how to say it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_interp.text.tokenization import decode, decode_after, encode, encode_after

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # the label of a token that is not to be predicted
PROMPT, TEXT = "{prompt}", "{text}"


@dataclass(frozen=True)
class Placement:
    """A place for the prompt among the tokens of an input.

    Attributes:
        name: what configs and saved files call it.
        before_text: the prompt opens the input: only padding and a leading token (BOS, CLS) stand in front of it.
        before_answer: the prompt stands right before the first token to be predicted, which therefore must be known.
        marked: the prompt stands where the row says: in place of the one column inside it that is not attended to.
        template: the shortest template that has the prompt there.
        preposition: the prompt stands "in front of" or "after" the input.
        where: the same in full, for the middle of a sentence.
    """

    name: str
    before_text: bool
    before_answer: bool
    template: str
    preposition: str
    where: str
    marked: bool = False

    @property
    def at(self) -> str:
        """Where the prompt stands in a template, for a sentence."""
        return "inside" if self.marked else f"at the {self.name}"

    # -- in token ids -------------------------------------------------------------------------------------------------

    def index(self, labels: Sequence[int], attended: Sequence[int] = ()) -> int:
        """Index into a row's ids, leading token left out, before which the prompt stands.

        Args:
            labels: one for each of the ids, -100 where nothing is predicted. Without any other, the answer is taken to
                follow the row.
            attended: for each of the ids and of what marks a place among them, 0 where that is.

        Raises:
            ValueError: no mark, or several, where a row must have one.
        """
        if self.marked and list(attended).count(0) != 1:
            raise ValueError(no_mark("the row", list(attended).count(0)))
        return list(attended).index(0) if self.marked else first_labelled(labels) if self.before_answer else 0

    def columns(self, first: Tensor, attended: Tensor | None, length: int, answer: Tensor | None = None) -> Tensor:
        """(batch,) column before which the prompt stands in each row of a padded batch; as `index`.

        Args:
            first: (batch,) column of each row's first token after padding and a leading token.
            attended: (batch, length) not 0 where a token is no padding; None for no padding.
            length: columns.
            answer: (batch, length) bool, what is to be predicted; None for nothing.

        Raises:
            ValueError: rows that mark no place, or several, where they must mark one.
        """
        if self.marked:
            return _marked_columns(first, attended)
        if not self.before_answer or not length:
            return first
        import torch  # here only: the command line takes its words from this module and starts without torch

        columns = torch.arange(length, device=first.device)
        text = columns >= first.unsqueeze(1)  # (batch, length)
        if attended is not None:
            text &= attended.ne(0)
        place = (text * (columns + 1)).amax(dim=1)  # after the last token
        if answer is not None:
            answer = answer.to(text.device) & text
            place = torch.where(answer.any(dim=1), answer.int().argmax(dim=1), place)
        return torch.maximum(first, place)

    # -- between token ids and text -----------------------------------------------------------------------------------

    def decode_prompt(self, tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
        """The prompt as the text that stands there; after other text, with its leading blank."""
        return decode(tokenizer, ids) if self.before_text else decode_after(tokenizer, ids)

    def encode_prompt(self, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
        """Ids of a prompt's text there; at the end it begins with a blank, which is added where it is missing.

        Where the row says, the blank is the caller's: "Answer:\n{prompt}" wants none, "Task: {prompt}" does.
        """
        if self.before_text or not text.strip():
            return encode(tokenizer, text)
        if self.marked:
            return encode_after(tokenizer, text, "a\n")
        return encode_after(tokenizer, text if text[0].isspace() else f" {text}")

    def encode_text(self, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
        """Ids of the input's text beside the prompt: after it, or at the beginning of the input."""
        return encode_after(tokenizer, text) if self.before_text else encode(tokenizer, text)

    # -- in templates -------------------------------------------------------------------------------------------------

    def fits(self, template: str) -> bool:
        """Whether a template has `{prompt}` in this place, or names no place for it."""
        before, found, after = template.partition(PROMPT)
        if not found:
            return not self.marked
        if self.marked:
            return PROMPT not in after and bool(before.strip() and after.strip())
        return PROMPT not in after and (TEXT not in before if self.before_text else not after.strip())

    def complete(self, template: str) -> str:
        """The template with `{prompt}` in this place, where it names none.

        Raises:
            ValueError: only the template can say where.
        """
        if PROMPT in template:
            return template
        if self.marked:
            raise ValueError(
                f"`template={template!r}` does not say where the prompt stands; write {{prompt}} there: "
                f"{self.template!r}, say."
            )
        if self.before_text:
            return f"{PROMPT} {template.lstrip()}"
        return f"{template}{PROMPT}" if template[-1:].isspace() else f"{template} {PROMPT}"

    def around(self, template: str) -> tuple[str, str]:
        """What stands in front of the prompt in a template that fits, and what after it.

        The blank in front of a prompt after other text is left out: the prompt's first token brings it along.
        """
        before, _, after = self.complete(template).partition(PROMPT)
        return (before, after) if self.before_text else (before.rstrip(" "), after if self.marked else "")

    def put(self, prompt: str, text: str) -> str:
        """A prompt's text and an input's text in one; not where the row says, which a text alone does not."""
        return f"{prompt}{text}" if self.before_text else f"{text}{prompt}"


START = Placement(
    name="start",
    before_text=True,
    before_answer=False,
    template="{prompt} {text}",
    preposition="in front of",
    where="in front of the input",
)
END = Placement(
    name="end",
    before_text=False,
    before_answer=True,
    template="{text} {prompt}",
    preposition="after",
    where="right after the input",
)
MARKED = Placement(
    name="template",
    before_text=False,
    before_answer=False,
    template="Task: {prompt}\n{text}",
    preposition="inside",
    where="inside the input, where its template says",
    marked=True,
)
PLACEMENTS = {placement.name: placement for placement in (START, END, MARKED)}


def placement_named(name: str, argument: str = "position") -> Placement:
    """The placement that configs and saved files call `name`.

    Raises:
        ValueError: an unknown one, naming the `argument` it was given as.
    """
    if not isinstance(name, str) or name not in PLACEMENTS:
        raise ValueError(f"`{argument}={name!r}` is unknown; use one of {', '.join(PLACEMENTS)}.")
    return PLACEMENTS[name]


def placement_of(config: PeftConfig | Mapping[str, Any] | None) -> Placement:
    """Where an adapter has its prompt, by its config or the dictionary saved of one; stock PEFT: before the text."""
    known = config.get("prompt_position") if isinstance(config, dict) else getattr(config, "prompt_position", None)
    return placement_named(known or START.name, "prompt_position")


def placement_in(template: str) -> Placement:
    """Where a template has `{prompt}`; before the text if it names no place."""
    if template.rstrip().endswith(PROMPT):
        return END
    return START if template.startswith(PROMPT) or PROMPT not in template else MARKED


def no_mark(row: str, count: int) -> str:
    """What is wrong with a row that marks no place for the prompt, or several."""
    return (
        f"{row} marks {count or 'no'} places for the prompt: with `prompt_position={MARKED.name!r}` its "
        "`attention_mask` has exactly one 0 between its tokens, where the prompt goes. `Verbalizer.encode_dataset`, "
        "`Verbalizer.model_inputs` and `mark_prompt` write it; pass their `attention_mask` on. TRL's trainers make one "
        "of their own: docs/tasks.md says what SFTTrainer needs to keep yours."
    )


def _marked_columns(first: Tensor, attended: Tensor | None) -> Tensor:
    """(batch,) the one column of each row that is not attended to and stands between others that are."""
    if attended is None:
        raise ValueError(no_mark("a batch without `attention_mask`", 0))
    real = attended.ne(0)
    before, after = real.cumsum(1).gt(0), real.flip(1).cumsum(1).flip(1).gt(0)
    inside = before & after & ~real  # (batch, length)
    counts = inside.sum(1)
    if not bool(counts.eq(1).all()):
        number = int(counts.ne(1).nonzero()[0])
        raise ValueError(no_mark(f"row {number} of the batch", int(counts[number])))
    return inside.int().argmax(1).to(first.device)


def first_labelled(labels: Sequence[int]) -> int:
    """Index of the first label that is not -100; their number if there is none."""
    return next((i for i, label in enumerate(labels) if label != IGNORED), len(labels))
