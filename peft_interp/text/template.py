"""A template around a row's columns: filled in, put into a chat's turn, and tokenised on both sides of the prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_interp.text.placement import MARKED, PROMPT, START, Placement, placement_in
from peft_interp.text.tokenization import adds_bos, decode_after, encode, encode_after, ids_around_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class NoRoomError(ValueError):
    """The template alone is longer than what is allowed."""


CHAT_ROLES = ("system", "user")
_BRACES = re.compile(r"\{([^{}]*)\}")


def columns_in(template: str) -> list[str]:
    """The columns a template asks for, in its order: ["premise", "hypothesis"] of "{premise} {prompt} {hypothesis}"."""
    return [name for name in _BRACES.findall(template) if f"{{{name}}}" != PROMPT]


def check_template(template: str, chat: str | None) -> None:
    """Refuse a template that asks for nothing, for a column twice, or that has the prompt melt with its neighbours.

    Raises:
        ValueError: saying what is wrong with it.
    """
    shown, names = f"`template={template!r}`", columns_in(template)
    if chat is not None and chat not in CHAT_ROLES:
        raise ValueError(f"`chat={chat!r}` is unknown; use one of {', '.join(CHAT_ROLES)}, or None for no chat.")
    if "label" in names:
        raise ValueError(f"{shown} ends where the label's word follows; leave {{label}} out.")
    if not names or "" in names or len(set(names)) < len(names):
        raise ValueError(
            f"{shown} must hold the data's columns in braces, each exactly once, and at least one: {{text}}, or "
            "{premise} and {hypothesis}, say."
        )
    if template.count(PROMPT) > 1:
        raise ValueError(f"{shown} may hold {{prompt}} only once.")
    if chat is not None:
        if chat == "system" and PROMPT in template and columns_in(template.partition(PROMPT)[0]):
            raise ValueError(
                f"{shown} with `chat='system'` puts all up to {{prompt}} into the system's turn, which is the same for "
                "every row; put the columns after {prompt}, or use `chat='user'`."
            )
        return
    placement, (front, _, back) = placement_in(template), template.partition(PROMPT)
    if PROMPT not in template:
        return
    glued = placement is not MARKED and not (back[:1] if placement is START else front[-1:]).isspace()
    if placement is MARKED:
        glued = front[-1].isalnum() or front[-1] == "}" or back[0].isalnum() or back[0] == "{" or not front.strip(" ")
    if glued:
        raise ValueError(
            f"{shown} must part {{prompt}} from its neighbours: at the beginning, with a blank or a line break after "
            "it; or at its end, with one in front of it; inside, with no letter, digit or brace beside it."
        )


@dataclass(frozen=True)
class Template:
    """What stands around the prompt, columns still in braces.

    Attributes:
        front: in front of the prompt; the blank that the prompt's first token brings along is left out.
        back: after the prompt.
        placement: where that is.
        verbatim: a chat's markup, of which nothing is stripped and which holds its own BOS.
        before_answer: what the answer is tokenised after; "" for any word, after which it follows with a blank.
    """

    front: str
    back: str
    placement: Placement
    verbatim: bool = False
    before_answer: str = ""

    def fill(self, values: Mapping[str, str], prompt: str) -> str:
        """The text as the model reads it, without an answer."""
        front, back = self._sides(values)
        if self.placement.before_text:
            return f"{prompt}{back}" if prompt else back.lstrip()
        return f"{front}{prompt}{back}"

    def answer_ids(self, tokenizer: PreTrainedTokenizerBase, answer: str) -> list[int]:
        """The answer's tokens where it stands."""
        if self.before_answer:
            return encode_after(tokenizer, answer.strip(), self.before_answer)
        return encode_after(tokenizer, " " + answer.strip())

    def encode(
        self, tokenizer: PreTrainedTokenizerBase, values: Mapping[str, str], room: int | None = None
    ) -> tuple[list[int], list[int]]:
        """Ids with a mask of 1, and a 0 at the one column that marks the place of a prompt inside.

        Args:
            tokenizer: its BOS is put in front where it would do so.
            values: of each column.
            room: most tokens; the longest columns are cut at their end, the template never is. None: no limit.

        Raises:
            NoRoomError: for any text.
            ValueError: nothing in front of a prompt that must be marked.
        """
        bos = [tokenizer.bos_token_id] if adds_bos(tokenizer) and not self.verbatim else []
        front, back = self._encoded(tokenizer, values)
        spare = len(bos) + self.placement.marked
        if room is not None and spare + len(front) + len(back) > room:
            front, back = self._cut(tokenizer, values, room - spare)
        front = [*bos, *front]
        if not self.placement.marked:
            return front + back, [1] * len(front + back)
        if not front:
            raise ValueError(
                f"nothing stands in front of the prompt in the row {dict(values)!r}, where a prompt inside is marked; "
                "fill the column in, drop the row, or begin the template with {prompt} or with a word."
            )
        return marked_row(tokenizer, front, back)

    def _sides(self, values: Mapping[str, str]) -> tuple[str, str]:
        front, back = (filled(side, values) for side in (self.front, self.back))
        if self.verbatim:
            return front, back
        breaks = self.front[len(self.front.rstrip()) :] if not self.placement.before_text else ""
        return front.strip() + breaks, back.rstrip()

    def _encoded(self, tokenizer: PreTrainedTokenizerBase, values: Mapping[str, str]) -> tuple[list[int], list[int]]:
        front, back = self._sides(values)
        return encode(tokenizer, front) if front else [], encode_after(tokenizer, back) if back else []

    def _cut(
        self, tokenizer: PreTrainedTokenizerBase, values: Mapping[str, str], room: int
    ) -> tuple[list[int], list[int]]:
        """Both sides in `room` tokens: the longest column cut to the token, others where they are too long as well."""
        counts = {name: len(encode_after(tokenizer, f" {value}")) for name, value in values.items()}
        longest = max(counts, key=lambda name: counts[name])
        fixed = sum(map(len, self._encoded(tokenizer, values))) - sum(counts.values())
        most = next((n for n in range(max(counts.values()), 0, -1) if _sum_of(counts, n) + fixed <= room), 1)
        values = {
            name: value if name == longest or counts[name] <= most else _beginning(tokenizer, value, most)
            for name, value in values.items()
        }
        sides = self._encoded(tokenizer, values)
        if sum(map(len, sides)) <= room:
            return sides
        first = f"{{{longest}}}" in self.front
        before, _, after = (self.front if first else self.back).partition(f"{{{longest}}}")
        if not (first or self.verbatim):
            after = after.rstrip()
        head = filled(before.lstrip() if first and not self.verbatim else before, values).rstrip()
        head_ids = encode(tokenizer, head) if first else encode_after(tokenizer, head)
        tail = encode_after(tokenizer, filled(after, values))
        left = room - len(sides[1 if first else 0]) - len(tail)
        if left <= len(head_ids):
            raise NoRoomError(f"{room} tokens leave no room for text beside the template")
        kept = sides[0 if first else 1][:left] + tail
        return (kept, sides[1]) if first else (sides[0], kept)


def filled(template: str, values: Mapping[str, str]) -> str:
    """A template with its columns' values; braces within a value stay as they are."""
    return _BRACES.sub(lambda found: values.get(found[1], found[0]), template)


def plain_template(template: str) -> Template:
    """A template as it is pasted, outside of any chat."""
    placement = placement_in(template)
    front, back = placement.around(template)
    if placement.before_text:
        return Template("", back.rstrip(), placement)
    return Template(front.lstrip(), back.rstrip(), placement)


def chat_template(template: str, role: str, tokenizer: PreTrainedTokenizerBase) -> Template:
    """A template within the tokenizer's chat, up to where the assistant answers.

    Args:
        template: all of it one turn of the user's; for the "system" role, what is up to `{prompt}` (or only the prompt,
            where it names no place) is the system's turn and the rest the user's.
        role: "user" or "system".
        tokenizer: with a chat template.

    Raises:
        ValueError: no chat template, or one that does not hold what it is given.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            f"`chat={role!r}` needs a tokenizer with a chat template, which {tokenizer.name_or_path!r} has not; use "
            "an instruction-tuned model's, or leave `chat` out."
        )
    whole = template if PROMPT in template else f"{PROMPT} {template.lstrip()}"
    messages = [{"role": "user", "content": whole}]
    if role == "system":
        before, _, after = whole.partition(PROMPT)
        messages = [{"role": "system", "content": before + PROMPT}, {"role": "user", "content": after.strip()}]
    made: Any = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if not isinstance(made, str) or sorted(_BRACES.findall(made)) != sorted(["prompt", *columns_in(whole)]):
        raise ValueError(
            f"the tokenizer's chat template does not hold the {role} turn as it is; use the other role, or write the "
            "turns into `template` yourself."
        )
    front, _, back = made.partition(PROMPT)
    return Template(front.rstrip(" "), back, MARKED, verbatim=True, before_answer=made.rpartition("}")[2])


def mark_prompt(
    tokenizer: PreTrainedTokenizerBase, text: str, max_length: int | None = None, add_special_tokens: bool = True
) -> dict[str, list[int]]:
    """A text with `{prompt}` in it as a row for `prompt_position="template"`: for a classifier's head, T5, TRL's SFT.

    Rows of a `Verbalizer` need this not; they are marked as they are.

    Args:
        tokenizer: the model's own.
        text: the whole row. A blank in front of `{prompt}` is the one that the prompt's first token brings along.
        max_length: most tokens, the prompt not counted; what is too much is cut off at the text's end.
        add_special_tokens: put the tokenizer's around it (CLS and SEP, BOS, EOS); False for a text that has its own, as
            `apply_chat_template` writes it.

    Returns:
        `input_ids` and `attention_mask`, whose only 0 is in the column that marks the place. Add `labels`, and pad with
        a collator that keeps the mask (`DataCollatorWithPadding`, `DataCollatorForSeq2Seq`).

    Raises:
        ValueError: no `{prompt}` or several, nothing in front of it or after it, or no room for what is.
    """
    check_row_text(text)
    if text.count(PROMPT) != 1:
        raise ValueError(f"the text {text[:80]!r} must hold {{prompt}} once, where the prompt goes.")
    front, _, back = text.partition(PROMPT)
    first, last = ids_around_text(tokenizer) if add_special_tokens else ([], [])
    before, after = [*first, *encode(tokenizer, front.rstrip(" "))], encode_after(tokenizer, back) if back else []
    room = len(after) if max_length is None else max_length - len(before) - len(last) - 1
    if room < min(1, len(after)):
        raise ValueError(f"`max_length={max_length}` leaves no room after {{prompt}} in {text[:80]!r}; allow more.")
    after = [*after[:room], *last]
    if not (before and after):
        raise ValueError(
            f"nothing stands {'after' if before else 'in front of'} the prompt in {text[:80]!r}, so its place cannot "
            "be marked; use `prompt_position='start'`, which needs no mark, or put a word there."
        )
    return dict(zip(("input_ids", "attention_mask"), marked_row(tokenizer, before, after), strict=True))


def marked_row(
    tokenizer: PreTrainedTokenizerBase, before: Sequence[int], after: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Ids and mask of a row with a column between two parts that marks the prompt's place."""
    return [*before, filler_id(tokenizer), *after], [1] * len(before) + [0] + [1] * len(after)


def filler_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """What stands where nothing is attended to: the pad token, else EOS, else 0."""
    return next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)


def check_row_text(text: Any, name: str = "text") -> None:
    """Refuse what is no text, or holds half characters, which tokenizers cannot read.

    Raises:
        ValueError: None, a number, a list, ..., or a lone surrogate.
    """
    if text is None:
        raise ValueError(f"`{name}=None` is no text; fill it in or drop the row.")
    if not isinstance(text, str):
        raise ValueError(
            f"`{name}={text!r}` is a {type(text).__name__} and must be a string, as the model shall read it."
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise ValueError(
            f"`{name}` holds {half!r} at place {error.start}, half of a character; read the file again as UTF-8, or "
            "clean it with `text.encode('utf-8', 'replace').decode()`."
        ) from None


def _sum_of(counts: Mapping[str, int], most: int) -> int:
    return sum(min(count, most) for count in counts.values())


def _beginning(tokenizer: PreTrainedTokenizerBase, value: str, count: int) -> str:
    """The first tokens of a text, as text."""
    return decode_after(tokenizer, encode_after(tokenizer, f" {value}")[:count]).strip()
