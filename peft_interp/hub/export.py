"""A prompt as something to paste elsewhere: plain text, chat messages, or a model of Ollama's."""

from __future__ import annotations

import json
import re
from typing import Any

from peft_interp.text.placement import START, TEXT, placement_named

ROLES = ("system", "user")
GGUF = "./model.gguf"
_OLLAMA_INPUT = "{{ .Prompt }}"
_OLLAMA_HEAD = """\
# The prompt of a peft-interp adapter, for `ollama create NAME -f Modelfile`.
# FROM names the weights that it was found on, {base}, as a GGUF file; rounded weights answer a little differently.
FROM {gguf}
PARAMETER temperature 0
# Ollama's default marks words down that stand in the prompt, which the model was not asked to do in training.
PARAMETER repeat_penalty 1
"""


def fill_template(template: str, prompt: str, position: str = START.name) -> str:
    """A template with the prompt in its place; `{text}` stays for the reader to fill.

    Args:
        template: "{prompt} {text} It was" or "{text} {prompt}", as `Verbalizer` has it; `{prompt}` is put in its place
            where it is missing. The blank in front of a prompt at the end is the one that the prompt brings along.
        prompt: the prompt's text.
        position: where the prompt stands, by its placement's name.

    Raises:
        ValueError: the template has the prompt elsewhere.
    """
    placement = placement_named(position)
    if not placement.fits(template):
        raise ValueError(
            f"`template={template!r}` does not fit this prompt, which stands {placement.preposition} the text; write "
            f"{placement.template!r}, say."
        )
    before, after = placement.around(template)
    return f"{before}{prompt}{after}"


def chat_messages(
    text: str, role: str = "user", template: str | None = None, position: str = START.name
) -> list[dict[str, Any]]:
    """The prompt as chat messages, in the form that chat models and services take.

    A chat template puts other tokens around the prompt than training did, so how well it works there is open: measure.

    Args:
        text: the prompt.
        role: "user": one message with prompt and input. "system": the prompt alone, the input as a user's message.
        template: of the input, if known; `{text}` in it is what the reader fills in.
        position: where the prompt stands, by its placement's name.

    Returns:
        Messages with `role` and `content`.

    Raises:
        ValueError: an unknown role, "system" for a prompt that stands after the input, or a template that has the
            prompt elsewhere.
    """
    if role not in ROLES:
        raise ValueError(f"`role={role!r}` is unknown; use one of {', '.join(ROLES)}.")
    placement = placement_named(position)
    if role == "system" and not placement.before_text:
        raise ValueError(
            f"`role='system'` stands in front of the input, but this prompt stands {placement.preposition} it; use "
            "'user'."
        )
    if placement.marked and template is None:
        raise ValueError("`template=None` does not say where inside the input the prompt stands; give the template.")
    if role == "user":
        return [{"role": "user", "content": fill_template(template or placement.template, text, position)}]
    following = fill_template(template, "").strip() if template else "{text}"
    return [{"role": "system", "content": text}, {"role": "user", "content": following}]


def chat_json(text: str, role: str = "user", template: str | None = None, position: str = START.name) -> str:
    """`chat_messages` as JSON."""
    return json.dumps(chat_messages(text, role, template, position), indent=2, ensure_ascii=False)


def ollama_modelfile(
    text: str,
    role: str = "user",
    template: str | None = None,
    position: str = START.name,
    base: str = "the base model",
    gguf: str = GGUF,
) -> str:
    """An Ollama Modelfile that puts the prompt around every input.

    Ollama reads templates in Go's language, where `{{` begins code; braces and quotation marks of the prompt are so
    written that it sees them as text.

    Args:
        text: the prompt.
        role: "user": the model's template is the prompt and the input, without any chat template, as in training.
            "system": the prompt is the system message, and the chat template of the GGUF file stays.
        template: of the input, if known, as in `chat_messages`; "system" leaves it to whoever asks.
        position: where the prompt stands, by its placement's name.
        base: what the base model is called, for a comment.
        gguf: what `FROM` names: a GGUF file, or a model that Ollama has.

    Raises:
        ValueError: as `chat_messages`, or a name with a line break.
    """
    if "\n" in gguf or "\n" in base:
        raise ValueError(f"`gguf={gguf!r}` and `base={base!r}` stand on one line of the Modelfile each; name a file.")
    head = _OLLAMA_HEAD.format(base=base, gguf=gguf)
    if role != "user":
        (system, _) = chat_messages(text, role, template, position)
        if '"""' in text or text.endswith('"'):
            raise ValueError('a prompt with """ in it or " at its end cannot stand in SYSTEM; use `role="user"`.')
        return f'{head}SYSTEM """{system["content"]}"""\n'
    placement = placement_named(position)
    fill_template(template or placement.template, text, position)  # complains where the template does not fit
    before, after = placement.around(template or placement.template)
    before, after = (_OLLAMA_INPUT.join(map(_as_go_text, part.split(TEXT))) for part in (before, after))
    return f'{head}TEMPLATE """{before}{_as_go_text(text)}{after}"""\n'


def _as_go_text(text: str) -> str:
    """Text for a Go template between triple quotation marks: braces and quotation marks as string constants."""
    return re.sub(r'["{}]+', lambda found: '{{ "' + "".join(f"\\x{ord(mark):02x}" for mark in found[0]) + '" }}', text)
