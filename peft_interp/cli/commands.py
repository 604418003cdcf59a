"""What the commands do; `cli/arguments.py` says what each takes."""

from __future__ import annotations

import re
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_interp.cli.adapters import (
    adapter_folder,
    base_of,
    load_adapter,
    load_base,
    load_tokenizer,
    local_base_note,
    shown_name,
)
from peft_interp.cli.data import Data, fitting_rows, load_data, prompt_length
from peft_interp.cli.outputs import check_not_adapters, check_output_files, check_output_folder
from peft_interp.explain.explain import explain_prompt
from peft_interp.hub.adapter_files import is_ours, read_config, write_portable
from peft_interp.hub.export import chat_json, ollama_modelfile
from peft_interp.hub.facts import read_facts
from peft_interp.hub.pushing import push_adapter_folder
from peft_interp.hub.saving import folder_report, write_beside
from peft_interp.hub.scores import plain_report
from peft_interp.inference.models import base_model_of
from peft_interp.inference.named_model import load_named_model
from peft_interp.metrics.reading import read_prompt
from peft_interp.report.build import report_prompt, report_text
from peft_interp.report.compare import PromptComparison, compare_prompts
from peft_interp.report.explanation import PromptExplanation
from peft_interp.report.prompt_report import PromptReport
from peft_interp.report.texts import json_text, plain, printable
from peft_interp.storage.atomic import replace_file
from peft_interp.text.label_bias import LabelBias
from peft_interp.text.placement import MARKED, START, Placement, placement_in, placement_of


def read(arguments: Namespace) -> None:
    """Show the report in the terminal, and write it to the files that were named.

    Raises:
        ValueError: a mistake of the user's.
    """
    pages = _pages(arguments)
    if arguments.text is not None:
        _read_text(arguments, pages)
        return
    folder = _folder(arguments)
    check_not_adapters(pages, folder)
    if arguments.attach:
        if not is_ours(folder) or not Path(arguments.adapter).expanduser().is_dir():
            raise ValueError(
                "`--attach` needs a folder with an InterpPrompt adapter; write a file with `--json` instead."
            )
        check_output_folder("--attach", folder)
    report = _report(folder, arguments)
    report.show()
    _write_pages(report, pages)
    if arguments.attach:
        _attach(folder, report, arguments)
    if note := local_base_note(folder):
        _note(note)
    if other := report.context.get("other_tokenizer"):
        _note(f"{other}; the base model's tokenizer counts.")


def _read_text(arguments: Namespace, pages: dict[str, Path]) -> None:
    """The report of a prompt written by hand."""
    only_adapters = {"an ADAPTER": arguments.adapter, "--attach": arguments.attach, "--wayward": arguments.wayward}
    if wrong := [name for name, value in only_adapters.items() if value]:
        raise ValueError(f"`--text` judges a text without an adapter; leave {' and '.join(wrong)} out.")
    base, tokenizer = _base_and_tokenizer(arguments)
    data = load_data(arguments, tokenizer, _placement_of_template(arguments))
    model = load_base(base)
    length = len(tokenizer.encode(arguments.text, add_special_tokens=False))
    rows = _rows(data, model, tokenizer, length, context := {"data": data.name} if data else {})
    other, other_tokenizer = _perplexity_model(arguments.perplexity_model)
    report = report_text(
        model,
        tokenizer,
        arguments.text,
        rows,
        data.verbalizer if data else None,
        perplexity_model=other,
        perplexity_tokenizer=other_tokenizer,
        context=context,
        progress=sys.stderr.isatty(),
        training_rows=data.encode_training(model, tokenizer, length) if data else None,
        **_judging(arguments),
    )
    report.show()
    _write_pages(report, pages)


def compare(arguments: Namespace) -> None:
    """Show which of several prompts does better on the same rows, and write it to the files that were named.

    Raises:
        ValueError: a mistake of the user's.
    """
    pages = _pages(arguments)
    folders = {name: adapter_folder(name) for name in arguments.prompts if _names_an_adapter(name)}
    for folder in folders.values():
        check_not_adapters(pages, folder)
    if not (arguments.task or arguments.data):
        raise ValueError("prompts are compared on rows: name them with `--task` or `--data`.")
    first = next(iter(folders.values()), None)
    downloaded = any(not Path(name).expanduser().is_dir() for name in folders)
    base, tokenizer = _base_and_tokenizer(arguments, first, downloaded)
    data = load_data(arguments, tokenizer, _placement(first) if first else _placement_of_template(arguments))
    model, longest = load_base(base), 0
    prompts: dict[str, str | PeftModel] = {}
    for name in arguments.prompts:
        prompt = load_adapter(folders[name], base, model) if name in folders else name
        length = len(tokenizer.encode(name)) if isinstance(prompt, str) else prompt_length(prompt, tokenizer)
        prompts[name if isinstance(prompt, str) else Path(name).name], longest = prompt, max(longest, length)
    if len(prompts) < len(arguments.prompts):
        raise ValueError("two prompts have one name; name each of them once, and folders by different last parts.")
    assert data is not None
    rows = _rows(data, model, tokenizer, longest, context := {"data": data.name})
    assert rows is not None
    comparison = compare_prompts(
        model,
        tokenizer,
        prompts,
        rows,
        data.verbalizer,
        context=context,
        progress=sys.stderr.isatty(),
        training_rows=data.encode_training(model, tokenizer, longest),
    )
    comparison.show()
    _write_pages(comparison, pages)


def explain(arguments: Namespace) -> None:
    """Show the text that behaves most like a prompt, or that there is none, and write it to the files that were named.

    Raises:
        ValueError: a mistake of the user's.
    """
    pages = _pages(arguments)
    folder = _folder(arguments)
    check_not_adapters(pages, folder)
    if not (arguments.task or arguments.data):
        raise ValueError("a prompt is explained by what it does on rows: name them with `--task` or `--data`.")
    model, tokenizer, data, rows, context = _adapter_and_rows(folder, arguments)
    assert rows is not None
    found = explain_prompt(
        model,
        tokenizer,
        rows,
        data.verbalizer if data else None,
        budget=arguments.budget,
        seed=arguments.seed,
        longest=arguments.longest,
        context=context,
        progress=sys.stderr.isatty(),
    )
    found.show()
    _write_pages(found, pages)


def _judging(arguments: Namespace) -> dict[str, Any]:
    """Whose readability score, and what the task is known by."""
    described = arguments.task_description
    naming = {"task_description": described} if described else None
    return {"scrutability": {"judge": arguments.judge}, "task_naming": naming}


def _names_an_adapter(prompt: str) -> bool:
    """Whether a prompt is meant as an adapter: a folder here, or "user/name"."""
    return Path(prompt).expanduser().is_dir() or re.fullmatch(r"[\w.-]+/[\w.-]+", prompt) is not None


def _base_and_tokenizer(
    arguments: Namespace, folder: Path | None = None, downloaded: bool = False
) -> tuple[str, PreTrainedTokenizerBase]:
    """What to load as base model, and its tokenizer; without an adapter the user has to name it."""
    if folder is None and not arguments.base_model:
        raise ValueError("a text is read by a language model; name it with `--base-model`: 'embedded', say.")
    base = base_of(folder, arguments.base_model, downloaded)
    return base, load_tokenizer(folder, base, arguments.tokenizer)


def _placement_of_template(arguments: Namespace) -> Placement:
    """Where the user's template has the prompt; before the text where it names no place."""
    template = arguments.template
    if arguments.chat:
        return MARKED
    return placement_in(template) if template and "{prompt}" in template else START


def _rows(
    data: Data | None, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, length: int, context: dict[str, str]
) -> Dataset | None:
    """The data's rows as they fit beside a prompt of `length` tokens; what was cut goes into `context`."""
    rows, cut = fitting_rows(data, base, tokenizer, length) if data else (None, None)
    if cut:
        context["cut"] = cut
        _note(f"cut: {cut}.")
    return rows


def _pages(arguments: Namespace) -> dict[str, Path]:
    """The files a report is to be written to, by their options; each can be written."""
    named = {f"--{kind}": getattr(arguments, kind) for kind in ("html", "markdown", "json")}
    pages = {option: Path(path) for option, path in named.items() if path}
    check_output_files(pages, arguments.data)
    return pages


def _write_pages(report: PromptReport | PromptComparison | PromptExplanation, pages: dict[str, Path]) -> None:
    made = {
        "--html": report.to_html,
        "--markdown": report.to_markdown,
        "--json": lambda: json_text(report.to_dict()),
    }
    for option, path in pages.items():
        replace_file(path, made[option](), follow_links=True)


def evaluate(arguments: Namespace) -> None:
    """Print the measures as JSON."""
    report = _report(_folder(arguments), arguments)
    plain = report.to_dict()
    reading = plain["reading"]
    scores = {
        "text": reading["text"],
        "ids": [token["id"] for token in reading["tokens"]],
        "method": reading["method"],
        "discrete": reading["discrete"],
        "verdicts": {verdict["question"]: verdict["answer"] for verdict in plain["verdicts"]},
        **{name: plain[name] for name in ("faithfulness", "scrutability", "waywardness", "context")},
        **{name: plain[name] for name in ("label_bias", "label_prior") if plain[name] is not None},
    }
    sys.stdout.write(json_text(scores))


def export(arguments: Namespace) -> None:
    """Write the prompt as text, as chat messages, as a Modelfile, or as an adapter for plain PEFT.

    Raises:
        ValueError: vectors asked for as text, no output folder or one within a checkpoint, or a template that has the
            prompt elsewhere.
    """
    folder = _folder(arguments)
    if arguments.to == "portable":
        _export_portable(folder, arguments)
        return
    output = {"--output": Path(arguments.output)} if arguments.output else {}
    check_output_files(output)
    check_not_adapters(output, folder)
    text = _text(folder, arguments)
    if arguments.to == "chat":
        text = chat_json(text, arguments.role, _chat_template(folder, arguments), _placement(folder).name) + "\n"
    if arguments.to == "ollama":
        base = read_facts(folder).base_model if is_ours(folder) else "its base model"
        template, position = _chat_template(folder, arguments), _placement(folder).name
        text = ollama_modelfile(text, arguments.role, template, position, base, arguments.gguf)
    if arguments.output:
        replace_file(Path(arguments.output), text, follow_links=True)
        return
    if sys.stdout.isatty():  # a pipe gets exactly the text, a terminal nothing that could steer it
        text = printable(text, keep="\n").rstrip("\n") + "\n"
    sys.stdout.write(text)


def _check_with_base(folder: Path, arguments: Namespace) -> None:
    """Whether vectors and ids are what the base model's table says; a note where there is no base model to ask.

    Raises:
        ValueError: the adapter holds another prompt than it says.
    """
    if not is_ours(folder):
        return
    try:
        base = base_of(folder, getattr(arguments, "base_model", None), _downloaded(arguments))
    except ValueError as error:
        _note(f"the vectors are not checked against the base model's table: {error}")
        return
    model = load_adapter(folder, base)
    ids, saved = model.prompt_token_ids(), read_facts(folder).ids
    if ids != saved:
        raise ValueError(
            f"the adapter says that its vectors are nearest to the tokens {saved}, but they are nearest to {ids}; save "
            "it again, or ask for another."
        )


def _is_checkpoint(folder: Path) -> bool:
    """Whether Trainer resumes each of the folder's subfolders that holds an adapter as one more adapter of the model.

    A checkpoint that was renamed is known by its optimizer.
    """
    return re.fullmatch(r"checkpoint-\d+", folder.name) is not None or (folder / "optimizer.pt").is_file()


def _export_portable(folder: Path, arguments: Namespace) -> None:
    output = arguments.output
    if not output:
        raise ValueError("`--to portable` needs `--output FOLDER`.")
    if _is_checkpoint(Path(output).resolve().parent):
        raise ValueError(
            f"`--output {output}` lies within a checkpoint, which Trainer would then resume as a model with two "
            "adapters; name a folder elsewhere."
        )
    if Path(output).resolve() == folder.resolve():
        raise ValueError(f"`--output {output}` is the adapter itself, which would be overwritten; name another folder.")
    check_output_folder("--output", Path(output))
    _check_with_base(folder, arguments)
    write_portable(folder, Path(output))


def _chat_template(folder: Path, arguments: Namespace) -> str | None:
    """The user's template, or that of the attached report."""
    if arguments.template:
        return str(arguments.template)
    attached = ((folder_report(folder) or {}).get("context") or {}).get("template")
    if attached and not _placement(folder).fits(attached):
        raise ValueError(
            f"the attached report was measured with {attached!r}, which has the prompt elsewhere than this adapter "
            f"(`prompt_position={_placement(folder).name!r}`); attach a new one, or name the template with --template."
        )
    return attached


def push(arguments: Namespace) -> None:
    """Push a saved adapter and say where it is."""
    folder = adapter_folder(arguments.adapter)
    try:
        tokenizer = load_tokenizer(folder, _base_or_none(folder), arguments.tokenizer)
    except ValueError:
        if arguments.tokenizer:
            raise
        tokenizer = None  # the card says so, or the text of the last save is used
    _check_with_base(folder, arguments)
    commit = push_adapter_folder(
        folder,
        arguments.repo,
        tokenizer,
        private=arguments.private,
        revision=arguments.revision,
        commit_message=arguments.message,
    )
    sys.stdout.write(f"{commit.repo_url}\n")
    if note := local_base_note(folder):
        _note(note)


def _adapter_and_rows(
    folder: Path, arguments: Namespace
) -> tuple[PeftModel, PreTrainedTokenizerBase, Data | None, Dataset | None, dict[str, str]]:
    """The adapter on its base model, the tokenizer, the data, its rows as they fit, and what a report's reader gets."""
    task_type = str(read_config(folder).get("task_type"))
    if (arguments.task or arguments.data) and task_type != "CAUSAL_LM":
        raise ValueError(
            f"`--task` and `--data` ask for a label word after the text, which only CAUSAL_LM adapters answer; this "
            f"one is for {task_type}. Leave the data out, or call `report_prompt` in Python with tokenised rows."
        )
    base = base_of(folder, arguments.base_model, _downloaded(arguments))
    tokenizer = load_tokenizer(folder, base, arguments.tokenizer)
    data = load_data(arguments, tokenizer, _placement(folder))
    model = load_adapter(folder, base)
    context = {"adapter": _shown(arguments), **({"data": data.name} if data else {})}
    base_model = base_model_of(model)
    rows = _rows(data, base_model, tokenizer, prompt_length(model, tokenizer), context)
    return model, tokenizer, data, rows, context


def _report(folder: Path, arguments: Namespace) -> PromptReport:
    model, tokenizer, data, rows, context = _adapter_and_rows(folder, arguments)
    base_model = base_model_of(model)
    other, other_tokenizer = _perplexity_model(arguments.perplexity_model)
    return report_prompt(
        model,
        tokenizer,
        rows,
        data.verbalizer if data else None,
        perplexity_model=other,
        perplexity_tokenizer=other_tokenizer,
        waywardness=arguments.wayward,
        **_judging(arguments),
        context=context,
        progress=sys.stderr.isatty(),
        training_rows=data.encode_training(base_model, tokenizer, prompt_length(model, tokenizer)) if data else None,
    )


def _folder(arguments: Namespace) -> Path:
    return adapter_folder(arguments.adapter, arguments.revision, arguments.subfolder)


def _placement(folder: Path) -> Placement:
    """Where the adapter has its prompt; one of another method, before the text."""
    return placement_of(read_config(folder))


def _shown(arguments: Namespace) -> str:
    """The adapter's name for a report that may be passed on: of an absolute path, the last part."""
    path = Path(arguments.adapter)
    name = path.name if path.expanduser().is_absolute() else arguments.adapter
    return shown_name(name, arguments.revision, arguments.subfolder)


def _perplexity_model(name: str | None) -> tuple[PreTrainedModel | None, PreTrainedTokenizerBase | None]:
    if name is None:
        return None, None
    from transformers import AutoTokenizer

    from peft_interp.embedded import resolve

    place = resolve(name)
    model = load_named_model(place)
    return model.eval(), AutoTokenizer.from_pretrained(place, trust_remote_code=False)


def _attach(folder: Path, report: PromptReport, arguments: Namespace) -> None:
    """Beside the adapter, and into its card."""
    tokenizer = load_tokenizer(folder, base_of(folder, arguments.base_model), arguments.tokenizer)
    write_beside(folder, tokenizer, plain_report(report), card=True)


def _text(folder: Path, arguments: Namespace) -> str:
    """The prompt's text, as the base model's tokenizer reads its ids; not what a file beside them says.

    Raises:
        ValueError: the prompt is vectors, or no tokenizer can be loaded.
    """
    base = _base_or_none(folder, arguments.base_model)
    tokenizer = load_tokenizer(folder, base, arguments.tokenizer)
    if is_ours(folder):
        facts = read_facts(folder, tokenizer)
        text, is_text = facts.text or "", facts.is_text
        if facts.label_bias is not None:
            _note(f"{LabelBias.from_dict(facts.label_bias).sentence()}.")
    else:
        base = base_of(folder, arguments.base_model, _downloaded(arguments))
        reading = read_prompt(load_adapter(folder, base), tokenizer)
        text, is_text = reading.text, reading.discrete
    if not is_text:
        raise ValueError(
            f"this prompt is vectors, which no text says exactly; its nearest tokens are {text!r}. See `peft-interp "
            "read` for whether they may stand for it."
        )
    return text


def _downloaded(arguments: Namespace) -> bool:
    """Whether the adapter comes from the Hub, and its config from somebody else."""
    return not Path(arguments.adapter).expanduser().exists()


def _base_or_none(folder: Path, wanted: str | None = None) -> str | None:
    try:
        return base_of(folder, wanted)
    except ValueError:
        return None


def _note(words: str) -> None:
    sys.stderr.write(f"peft-interp: note: {plain(words)}\n")
