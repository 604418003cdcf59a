"""A prompt as something to paste elsewhere: plain text, or a chat message."""

from __future__ import annotations

import json
from typing import Any

from peft_interp.text.placement import START, placement_named

ROLES = ("system", "user")


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
