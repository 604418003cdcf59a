"""The model card: our part between two markers, everybody else's text and metadata kept."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from peft_interp.base_model_name import public_name
from peft_interp.hub.adapter_files import CARD_FILE
from peft_interp.hub.facts import PromptFacts
from peft_interp.hub.scores import OUR_METRICS, eval_results, report_markdown
from peft_interp.hub.usage import fenced, usage
from peft_interp.tuner.task_types import prompt_task

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
    where = facts.placement.where + (", before the answer" if facts.placement.before_answer else "")
    lines = [f"{len(facts.ids)} tokens of the base model's vocabulary. They stand {where}"]
    if facts.leading_ids and facts.placement.before_text:
        lines[0] += f", after {inline(facts.leading_text or str(facts.leading_ids))} where the input begins with it"
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


BEGIN = "<!-- peft-interp: begin; rewritten at every save, so write your own text above or below -->"
END = "<!-- peft-interp: end -->"
TAGS = ("peft", "prompt-tuning", "interpretable-prompt")
_BASE_TAG = "base_model:adapter:"
_SCRATCH = re.compile(r"This model was trained from scratch on ")
_EMPTY_SECTION = re.compile(r"^## [^\n]+\n+More information needed\n+", re.MULTILINE)


@dataclass(frozen=True)
class CardEntry:
    """One readable prompt of the repository.

    Attributes:
        folder: its folder within the repository, "" for the top.
        facts: of the prompt.
        report: a `PromptReport` as a dictionary, or None.
        portable: whether there is a copy for plain PEFT.
    """

    folder: str
    facts: PromptFacts
    report: dict[str, Any] | None
    portable: bool


def update_card(
    folder: Path,
    entries: Sequence[CardEntry],
    peft_update: Callable[[], None] | None = None,
    location: str | None = None,
    tags: Sequence[str] = (),
) -> None:
    """Write `README.md`, or bring an existing one up to date.

    Text outside our markers stays as it is, Trainer's table included, but for its empty "More information needed"
    sections; so do metadata that others set: licence, language, data sets, tags, results.

    Args:
        folder: of the repository.
        entries: its readable prompts, the main one first; with none, our part is taken out.
        peft_update: PEFT's own update of the card, run in between.
        location: hub name of the repository where it is known.
        tags: more tags.
    """
    path = folder / CARD_FILE
    if not path.exists():  # so that PEFT does not fill it with its template of empty sections
        path.write_text("---\nlibrary_name: peft\n---\n", encoding="utf-8")
    tags = [*tags, *(ModelCard.load(path).data.tags or [])]  # Trainer's among them, which PEFT overwrites
    if peft_update is not None:
        peft_update()
    card = ModelCard.load(path)
    foreign = _tidy(without_our_part(card.text), entries[0].facts if entries else None)
    card.text = _joined(foreign, _our_part(entries, location)) if entries else foreign
    _update_metadata(card.data, tags, entries)
    card.save(path)


def without_our_part(text: str) -> str:
    """The card's body as others wrote it. The last end marker counts, so that no prompt can end our part early."""
    start, end = text.find(BEGIN), text.rfind(END)
    if start == -1 or end < start:
        return text
    return text[:start].rstrip() + "\n\n" + text[end + len(END) :].lstrip()


def _tidy(text: str, facts: PromptFacts | None) -> str:
    """Trainer's sentences put right: nothing was trained from scratch, and empty sections say nothing."""
    if facts is not None:
        text = _SCRATCH.sub(lambda _: f"This prompt was trained for the base model {facts.base_model} on ", text)
    return _EMPTY_SECTION.sub("", text)


def _joined(foreign: str, ours: str) -> str:
    """Our part after the first title, or in front of everything."""
    lines, fence = foreign.strip().splitlines(keepends=True), ""
    for number, line in enumerate(lines):
        if mark := re.match(r"\s*(```+|~~~+)", line):
            fence = "" if fence and line.strip().startswith(fence) else fence or mark.group(1)
        elif not fence and line.startswith("# "):
            head, tail = "".join(lines[: number + 1]), "".join(lines[number + 1 :])
            break
    else:
        head, tail = "# A readable prompt", foreign.strip()
    return f"\n{head.strip()}\n\n{ours}\n\n{tail.strip()}".rstrip() + "\n"


def _our_part(entries: Sequence[CardEntry], location: str | None) -> str:
    main, *others = entries
    known = (main.report or {}).get("context") or {}
    asked = known.get("template"), known.get("label_words") or ()
    text = section(main.facts, report_markdown(main.report), main.folder, location, main.portable, *asked)
    if others:
        listed = [f"In `{other.folder}`:\n\n{shown_text(other.facts.text or str(other.facts.ids))}" for other in others]
        text += "\n## Other prompts in this repository\n\n" + "\n\n".join(listed) + "\n"
    return f"{BEGIN}\n\n{text}\n{END}"


def _update_metadata(data: Any, tags: Sequence[str], entries: Sequence[CardEntry]) -> None:
    wanted = [*tags, *(data.tags or []), *(TAGS if entries else ())]
    data.tags = sorted({tag for tag in wanted if not _names_a_path(tag)})
    data.library_name = "peft"
    if not entries:
        return
    facts = entries[0].facts
    hub = facts.base_model_kind == "hub"
    data.base_model = facts.base_model if hub else None  # the Hub refuses a card that names a path here
    if not data.pipeline_tag:
        task = prompt_task(facts.task_type)
        data.pipeline_tag = (task.pipeline_tag or None) if task else None
    results = [result for result in data.eval_results or [] if not _is_ours(result)]
    for entry in entries:
        results += eval_results(entry.report, facts.task_type, entry.folder)
    had_any = data.eval_results is not None
    data.eval_results = results if results or had_any else None
    if data.eval_results is not None and not data.model_name:
        data.model_name = "prompt"


def _names_a_path(tag: str) -> bool:
    name = tag.removeprefix(_BASE_TAG)
    return name != tag and public_name(name).kind != "hub"


def _is_ours(result: EvalResult) -> bool:
    return (result.metric_name or "").partition(" (in ")[0] in OUR_METRICS
