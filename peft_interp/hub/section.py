"""Our part of the model card, as Markdown: the prompt in front, what to think of it, how to use it, its training."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from peft_interp.hub.facts import PromptFacts
from peft_interp.hub.usage import fenced, usage

_UNSEEN = {" ": "a blank", "\n": "a line break"}


def inline(text: str) -> str:
    """Code within a line; a JSON string, so that blanks and line breaks show."""
    shown = json.dumps(text, ensure_ascii=False)
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    marks = "`" * (longest + 1)
    return f"{marks}{shown}{marks}"


def section(
    facts: PromptFacts,
    scores: str = "",
    folder: str = "",
    location: str | None = None,
    portable: bool = True,
    template: str | None = None,
    label_words: Sequence[str] = (),
) -> str:
    """Markdown about one prompt, headings from level 2.

    Args:
        facts: of the prompt.
        scores: the report as Markdown; "" when none is attached.
        folder: where the adapter is within the repository; "" for its top.
        location: hub name of the repository where it is known.
        portable: whether there is a portable copy.
        template: of the input, where the report knows it.
        label_words: the answers to choose from, where the report knows them.
    """
    place = location or "FOLDER_OR_HUB_NAME"
    believe = scores or (
        f"No report is attached yet. `peft-interp read {place}` shows what the prompt says and measures whether the "
        "text does what the prompt does and whether a person can read it; `model.attach_report(report)` puts the "
        "result here."
    )
    parts = [
        f"## The prompt\n\n{_prompt(facts)}",
        f"## May you believe it?\n\n{believe.strip()}",
        f"## How to use it\n\n{usage(facts, place, folder, portable, template, label_words)}",
        f"## How it was trained\n\n{_origin(facts)}",
    ]
    return "\n\n".join(parts) + "\n"


def _prompt(facts: PromptFacts) -> str:
    if facts.text is None:
        return (
            f"Its text is not written here, because no tokenizer was known when it was saved. Token ids: "
            f"`{facts.ids}`. `tokenizer.decode(ids)` of the base model's tokenizer gives the text."
        )
    if not facts.is_text:
        return (
            f"{len(facts.ids)} trained vectors that are no text. Their nearest tokens, which need not act like them:"
            f"\n\n{shown_text(facts.text)}"
        )
    return f"{shown_text(facts.text)}\n\n{_place(facts)}"


def shown_text(text: str) -> str:
    """The text as a code block; as a JSON string where it has characters that cannot be seen."""
    if all(part.isprintable() for part in text.split("\n")):
        return fenced(text)
    return fenced(json.dumps(text), "json") + "\n\n(a JSON string, because it has characters that cannot be seen)"


def _place(facts: PromptFacts) -> str:
    assert facts.text is not None
    at_end = facts.position == "end"
    where = "right behind the input's text, before the answer" if at_end else "in front of the input"
    lines = [f"{len(facts.ids)} tokens of the base model's vocabulary. They stand {where}"]
    if facts.leading_ids and not at_end:
        lines[0] += f", behind {inline(facts.leading_text or str(facts.leading_ids))} where the input begins with it"
    edges = [f"begins with {_UNSEEN[facts.text[0]]}" if facts.text[:1] in _UNSEEN else ""]
    edges += [f"ends with {_UNSEEN[facts.text[-1]]}" if facts.text[-1:] in _UNSEEN else ""]
    edges = [edge for edge in edges if edge]
    lines[0] += "."
    if edges:
        lines.append(f"The text {' and '.join(edges)}, which belongs to it.")
    lines.append("`prompt.txt` holds exactly this text, `prompt.json` the ids.")
    return " ".join(lines)


def _origin(facts: PromptFacts) -> str:
    base = f"[{facts.base_model}](https://huggingface.co/{facts.base_model})"
    rows = [
        f"- base model (frozen): {base if facts.base_model_kind == 'hub' else facts.base_model}",
        f"- task type: {facts.task_type}",
    ]
    if facts.found_by:
        rows += _search(facts.found_by)
    if facts.steps or not facts.found_by:
        rows.append(f"- optimizer steps: {facts.steps}")
    rows.append(f"- settings of the adapter: {_settings(facts.settings)}")
    if facts.trained_modules:
        rows.append(f"- stored with the prompt: {', '.join(f'`{name}`' for name in facts.trained_modules)}")
    rows.append("- versions: " + ", ".join(f"{name} {number}" for name, number in facts.versions.items()))
    return "\n".join(rows)


def _search(found_by: dict[str, Any]) -> list[str]:
    """How a trainer that scores prompts found this one."""
    counts = f"{found_by.get('steps')} steps, {found_by.get('prompts_scored')} prompts scored"
    rewards = ", ".join(f"`{name}` (weight {weight:g})" for name, weight in (found_by.get("rewards") or {}).items())
    return [
        f"- found by: {inline_value(found_by.get('trainer'))}, {counts}",
        f"- rewards: {rewards or 'none'}",
        f"- settings of the search: {_settings(found_by.get('settings') or {})}",
    ]


def _settings(settings: dict[str, Any]) -> str:
    chosen = ", ".join(f"`{name}` = {inline_value(value)}" for name, value in settings.items())
    return f"{chosen}; the rest are the defaults" if chosen else "the defaults"


def inline_value(value: Any) -> str:
    """A setting within a line."""
    return inline(value) if isinstance(value, str) else inline_list(value) if isinstance(value, list) else f"`{value}`"


def inline_list(values: list[Any]) -> str:
    """A list of words within a line."""
    return ", ".join(inline(str(value)) for value in values)
