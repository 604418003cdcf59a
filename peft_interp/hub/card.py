"""The model card: our part between two markers, everybody else's text and metadata kept."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from peft_interp.base_model_name import INSTALL, PLACE_OF_THE_ADAPTER, public_name
from peft_interp.hub.adapter_files import CARD_FILE
from peft_interp.hub.facts import PromptFacts
from peft_interp.hub.scores import OUR_METRICS, eval_results, readable_report, report_markdown
from peft_interp.hub.usage import adapter_code, plain_text, stock_code
from peft_interp.report.prompt_report import PromptReport
from peft_interp.report.templating import Markdown, render_markdown
from peft_interp.report.texts import code_line, fenced, in_markdown
from peft_interp.storage.atomic import replace_file
from peft_interp.text.label_bias import LabelBias
from peft_interp.text.template import columns_in
from peft_interp.tuner.task_types import prompt_task

TEMPLATES = Path(__file__).parent / "templates"
_UNSEEN = {" ": "a blank", "\n": "a line break"}


def inline(value: Any) -> Markdown:
    """A value as code within a line: a JSON string, so that blanks and line breaks show; a list word by word."""
    if isinstance(value, (list, tuple)):
        return Markdown(", ".join(inline(str(item)) for item in value))
    return Markdown(code_line(json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)))


def section(
    facts: PromptFacts,
    scores: str = "",
    folder: str = "",
    location: str | None = None,
    template: str | None = None,
    label_words: Sequence[str] = (),
) -> str:
    """Markdown about one prompt, headings from level 2.

    Args:
        facts: of the prompt.
        scores: the report as Markdown; "" when none is attached.
        folder: where the adapter is within the repository; "" for its top.
        location: hub name of the repository where it is known.
        template: of the input, where the report knows it.
        label_words: the answers to choose from, where the report knows them.
    """
    place = location or PLACE_OF_THE_ADAPTER
    return render_markdown(
        TEMPLATES,
        "card.md",
        facts=facts,
        shown=Markdown(shown_text(facts.text or "")),
        where=facts.placement.where + (", before the answer" if facts.placement.before_answer else ""),
        leading=_leading(facts),
        edges=_edges(facts.text or ""),
        quoted=inline,
        scores=Markdown(scores.strip()),
        read_command=f"peft-interp read {place}",
        install=INSTALL,
        ours=adapter_code(facts, place, folder, template, label_words),
        stock=stock_code(facts, place, folder),
        text=plain_text(facts, template),
        hub_link=Markdown(f"https://huggingface.co/{facts.base_model}"),
        found_by=_found_by(facts.found_by),
        needed=bias.sentence() if (bias := _bias(facts)) is not None else "",
        settings=facts.settings,
        settings_line=_settings,
    )


def shown_text(text: str) -> str:
    """The text as a code block; as a JSON string where it has characters that cannot be seen."""
    if all(part.isprintable() for part in text.split("\n")):
        return fenced(text)
    return fenced(json.dumps(text), "json") + "\n\n(a JSON string, because it has characters that cannot be seen)"


def _leading(facts: PromptFacts) -> str:
    if not facts.leading_ids or not facts.placement.before_text:
        return ""
    return facts.leading_text or str(facts.leading_ids)


def _edges(text: str) -> str:
    edges = [f"begins with {_UNSEEN[text[0]]}"] if text[:1] in _UNSEEN else []
    edges += [f"ends with {_UNSEEN[text[-1]]}"] if text[-1:] in _UNSEEN else []
    return " and ".join(edges)


def _bias(facts: PromptFacts) -> LabelBias | None:
    return None if facts.label_bias is None else LabelBias.from_dict(facts.label_bias)


def _found_by(found_by: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """How a trainer that scores prompts found this one."""
    if not found_by:
        return None
    rewards, settings = found_by.get("rewards"), found_by.get("settings")
    return {
        "trainer": found_by.get("trainer"),
        "steps": found_by.get("steps"),
        "prompts": found_by.get("prompts_scored"),
        "rewards": [(name, _weight(w)) for name, w in rewards.items()] if isinstance(rewards, Mapping) else [],
        "settings": settings if isinstance(settings, Mapping) else {},
        "chosen_by": found_by.get("chosen_by") or "",
    }


def _weight(weight: Any) -> str:
    return f"{weight:g}" if isinstance(weight, (int, float)) else str(weight)


def _settings(settings: Mapping[str, Any]) -> Markdown:
    chosen = ", ".join(f"{code_line(name)} = {inline(value)}" for name, value in settings.items())
    return Markdown(f"{chosen}; the rest are the defaults" if chosen else "the defaults")


BEGIN = "<!-- peft-interp: begin; rewritten at every save, so write your own text above or below -->"
END = "<!-- peft-interp: end -->"
TAGS = ("peft", "prompt-tuning", "interpretable-prompt")
_BASE_TAG = "base_model:adapter:"
_SCRATCH = re.compile(r"This model was trained from scratch on ")
_TITLES = {
    "unknown": "A prompt",
    "readable": "A readable prompt",
    "hard": "A prompt that is hard to read",
    "unreadable": "A prompt that a person cannot read",
    "unlike": "A prompt that acts unlike its text",
    "soft": "A soft prompt",
    "explained": "A soft prompt that its nearest tokens explain",
    "unexplained": "A soft prompt that its nearest tokens do not explain",
}
_EMPTY_SECTION = re.compile(r"^## [^\n]+\n+More information needed\n+", re.MULTILINE)


@dataclass(frozen=True)
class CardEntry:
    """One readable prompt of the repository.

    Attributes:
        folder: its folder within the repository, "" for the top.
        facts: of the prompt.
        report: a `PromptReport` as a dictionary, or None.
    """

    folder: str
    facts: PromptFacts
    report: dict[str, Any] | None


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
        replace_file(path, "---\nlibrary_name: peft\n---\n")
    tags = [*tags, *(ModelCard.load(path).data.tags or [])]  # Trainer's among them, which PEFT overwrites
    if peft_update is not None:
        peft_update()
    card = ModelCard.load(path)
    foreign = _tidy(without_our_part(card.text), entries[0].facts if entries else None)
    card.text = _joined(foreign, _our_part(entries, location), title(entries[0])) if entries else foreign
    _update_metadata(card.data, tags, entries)
    replace_file(path, str(card))


def title(entry: CardEntry) -> str:
    """The card's heading where the user wrote none: it claims no more than the attached report shows."""
    report, is_text = readable_report(entry.report), entry.facts.is_text
    answers = _answers(report) if report is not None else {}
    faithful, readable = answers.get("faithful"), answers.get("readable")
    if not is_text:
        return _TITLES[{"yes": "explained", "no": "unexplained"}.get(faithful or "", "soft")]
    if faithful == "no":
        return _TITLES["unlike"]
    return _TITLES[{"yes": "readable", "partly": "hard", "no": "unreadable"}.get(readable or "", "unknown")]


def _answers(report: PromptReport) -> dict[str, str]:
    return {verdict.question: verdict.answer for verdict in report.verdicts}


def without_our_part(text: str) -> str:
    """The card's body as others wrote it. The last end marker counts, so that no prompt can end our part early."""
    start, end = text.find(BEGIN), text.rfind(END)
    if start == -1 or end < start:
        return text
    return text[:start].rstrip() + "\n\n" + text[end + len(END) :].lstrip()


def _tidy(text: str, facts: PromptFacts | None) -> str:
    """Trainer's sentences put right: nothing was trained from scratch, and empty sections say nothing."""
    if facts is not None:
        base = in_markdown(facts.base_model)
        text = _SCRATCH.sub(lambda _: f"This prompt was trained for the base model {base} on ", text)
    return _EMPTY_SECTION.sub("", text)


def _joined(foreign: str, ours: str, heading: str) -> str:
    """Our part after the first title, or in front of everything; a title that we wrote earlier is written anew."""
    lines, fence = foreign.strip().splitlines(keepends=True), ""
    for number, line in enumerate(lines):
        if mark := re.match(r"\s*(```+|~~~+)", line):
            fence = "" if fence and line.strip().startswith(fence) else fence or mark.group(1)
        elif not fence and line.startswith("# "):
            own = line.strip().removeprefix("# ") in _TITLES.values()
            head = "".join([*lines[:number], f"# {heading}\n" if own else line])
            tail = "".join(lines[number + 1 :])
            break
    else:
        head, tail = f"# {heading}", foreign.strip()
    return f"\n{head.strip()}\n\n{ours}\n\n{tail.strip()}".rstrip() + "\n"


def _our_part(entries: Sequence[CardEntry], location: str | None) -> str:
    main, *others = entries
    report = readable_report(main.report)
    asked, bias = _asked(report.context) if report is not None else (None, ()), _bias(main.facts)
    if bias is not None:  # the numbers are for these
        plain = {"template": bias.template, "label_words": bias.words, "chat": bias.chat or bias.first_token}
        asked = _asked(plain)
    text = section(main.facts, report_markdown(report), main.folder, location, *asked)
    if others:
        listed = [f"In {code_line(o.folder)}:\n\n{shown_text(o.facts.text or str(o.facts.ids))}" for o in others]
        text += "\n## Other prompts in this repository\n\n" + "\n\n".join(listed) + "\n"
    return f"{BEGIN}\n\n{text}\n{END}"


def _asked(context: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    """Template of one text and label words that the report was measured with, as far as they can be such."""
    template, words = context.get("template"), context.get("label_words")
    if context.get("chat") or (isinstance(template, str) and columns_in(template) != ["text"]):
        template = None  # a turn's markup, first tokens, or a row's columns, which the code here has not
    known = isinstance(words, (list, tuple)) and all(isinstance(word, str) for word in words)
    return template if isinstance(template, str) else None, list(words) if known and words else []


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
