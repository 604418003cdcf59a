"""A prompt as something to paste elsewhere: plain text, or a chat message."""

from __future__ import annotations

import json
from typing import Any

ROLES = ("system", "user")


def template_fits(template: str, position: str) -> bool:
    """Whether a template has the prompt where the adapter has it, or leaves its place open.

    Args:
        template: with `{text}` and, maybe, `{prompt}`.
        position: of the adapter's prompt, "start" or "end".
    """
    if "{prompt}" not in template:
        return True
    before, after = template.split("{prompt}", 1)
    if "{prompt}" in after:
        return False
    return not after.strip() if position == "end" else "{text}" not in before


def fill_template(template: str, prompt: str, position: str = "start") -> str:
    """A template with the prompt in its place; `{text}` stays for the reader to fill.

    Args:
        template: "{prompt} {text} It was" or "{text} {prompt}", as `Verbalizer` has it; `{prompt}` is put in its place
            where it is missing. The blank in front of a prompt at the end is the one that the prompt brings along.
        prompt: the prompt's text.
        position: where the prompt stands, "start" or "end".

    Raises:
        ValueError: the template has the prompt elsewhere.
    """
    if not template_fits(template, position):
        where, like = ("after", "{text} {prompt}") if position == "end" else ("in front of", "{prompt} {text}")
        raise ValueError(
            f"`template={template!r}` does not fit this prompt, which stands {where} the text; write {like!r}, say."
        )
    if position == "end":
        return template.rstrip().removesuffix("{prompt}").rstrip(" ") + prompt
    template = template if "{prompt}" in template else "{prompt} " + template.lstrip()
    before, after = template.split("{prompt}", 1)
    return f"{before}{prompt}{after}"


def chat_messages(
    text: str, role: str = "user", template: str | None = None, position: str = "start"
) -> list[dict[str, Any]]:
    """The prompt as chat messages, in the form that chat models and services take.

    A chat template puts other tokens around the prompt than training did, so how well it works there is open: measure.

    Args:
        text: the prompt.
        role: "user": one message with prompt and input. "system": the prompt alone, the input as a user's message.
        template: of the input, if known; `{text}` in it is what the reader fills in.
        position: where the prompt stands, "start" or "end".

    Returns:
        Messages with `role` and `content`.

    Raises:
        ValueError: an unknown role, "system" for a prompt that stands after the input, or a template that has the
            prompt elsewhere.
    """
    if role not in ROLES:
        raise ValueError(f"`role={role!r}` is unknown; use one of {', '.join(ROLES)}.")
    if role == "system" and position == "end":
        raise ValueError("`role='system'` stands in front of the input, but this prompt stands after it; use 'user'.")
    if role == "user":
        bare = "{text}" if position == "end" else "{prompt} {text}"
        return [{"role": "user", "content": fill_template(template or bare, text, position)}]
    following = fill_template(template, "").strip() if template else "{text}"
    return [{"role": "system", "content": text}, {"role": "user", "content": following}]


def chat_json(text: str, role: str = "user", template: str | None = None, position: str = "start") -> str:
    """`chat_messages` as JSON."""
    return json.dumps(chat_messages(text, role, template, position), indent=2, ensure_ascii=False)
