"""What the command line takes; read before anything heavy is imported, so that `--help` answers at once."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from peft_interp._version import __version__
from peft_interp.hub.export import GGUF, ROLES
from peft_interp.report.texts import plain
from peft_interp.text.label_bias import CALIBRATIONS
from peft_interp.text.placement import END, START

TASK_NAMES = sorted(path.name for path in (Path(__file__).parents[1] / "embedded" / "data").iterdir() if path.is_dir())
DEFAULT_TEMPLATES = {START.name: "{prompt} {text} It was", END.name: END.template}  # by the prompt's position
_TEMPLATE_HELP = (
    f"as in training (default: '{DEFAULT_TEMPLATES[START.name]}', for a prompt after the text "
    f"'{DEFAULT_TEMPLATES[END.name]}')"
)
_ADAPTER = "folder or hub name of a saved PEFT prompt adapter"
_READ = """\
What does this prompt say, and may I believe it?

Without data the prompt is read and its text judged. With data (--task or --data) the prompt is also compared with its
own text and with no prompt at all. Works for every PEFT prompt adapter whose prompt stands among the input embeddings.
"""
_EVALUATE = "The same measures as JSON on standard output, for scripts."
_COMPARE = """\
Which of these prompts is better, and is that more than chance? Each PROMPT is a folder or "user/name" on the Hub with a
prompt adapter, or else a text; all are put to the same rows, with paired differences and their intervals.
"""
_EXPLAIN = """\
What does this soft prompt say? Looks for a text that behaves like the prompt on the data's rows and says how much of it
the text explains; shows none where none does. Works for prompt tuning, P-tuning and prefix tuning on causal models.
"""
_EXPORT = """\
Take the prompt elsewhere: "text" is exactly the prompt's text, "chat" a list of messages as JSON, "ollama" a Modelfile,
"portable" a stock PROMPT_TUNING adapter without a trace of this package, which plain PEFT loads without a warning.
"""
_PUSH = """\
Push a saved adapter with its text and a model card. Nothing else in the folder leaves it, and the
base model is not needed. Log in with `hf auth login`, or set HF_TOKEN.
"""
_EPILOG = "exit codes: 0 done, 1 a mistake that one line on standard error names, 2 arguments not understood"


class Command(NamedTuple):
    """A command: the function of its name in `cli/commands.py` runs it."""

    name: str
    summary: str  # in the list of commands
    description: str  # on top of its own help
    add_arguments: Callable[[argparse.ArgumentParser], None]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of a command; what is unknown ends the process, with the option that was probably meant."""
    parser, commands = _make_parsers()
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        command = commands[arguments.command]
        options = re.findall(r"--[a-z-]+", command.format_help())
        meant = [near for word in unknown if word.startswith("-") for near in _nearest(word, options)]
        hint = f"; did you mean {' and '.join(meant)}?" if meant else f"; see {command.prog} --help"
        command.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    if arguments.command == "read" and arguments.adapter is None and arguments.text is None:
        commands["read"].error("the following arguments are required: ADAPTER, or a prompt with --text")
    return arguments


class _Parser(argparse.ArgumentParser):
    """Complains without passing control codes of its arguments on to the terminal."""

    def error(self, message: str) -> NoReturn:
        super().error(plain(message))


def _nearest(word: str, options: Sequence[str]) -> list[str]:
    """The option that a word begins, else the one that is spelled most like it; none where nothing is near."""
    from difflib import get_close_matches

    return [option for option in options if option.startswith(word)][:1] or get_close_matches(word, options, n=1)


def _make_parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of everything, and that of each command; an option counts only in full."""
    parser = _Parser(
        prog="peft-interp",
        description="Read, measure, export and share prompts trained with PEFT.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"peft-interp {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary, description, add_arguments in COMMANDS:
        command = commands.add_parser(
            name,
            help=summary,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        add_arguments(command)
        command.add_argument("--debug", action="store_true", help="show where an error comes from")
    return parser, dict(commands.choices)


def _add_adapter(command: argparse.ArgumentParser, or_text: bool = False) -> None:
    if not or_text:
        command.add_argument("adapter", metavar="ADAPTER", help=_ADAPTER)
        return
    command.add_argument("adapter", metavar="ADAPTER", nargs="?", help=_ADAPTER)
    command.add_argument("--text", metavar="PROMPT", help="judge a prompt written by hand instead; needs --base-model")


def _add_models(command: argparse.ArgumentParser) -> None:
    command.add_argument("--revision", metavar="NAME", help="of an adapter on the Hub: branch, tag or commit")
    command.add_argument("--subfolder", metavar="NAME", help="where the adapter lies within ADAPTER")
    command.add_argument(
        "--base-model",
        metavar="NAME",
        help="hub name or folder of the base model, 'embedded' (in this package) or 'smollm2'; default: the adapter's",
    )
    _add_tokenizer(command)


def _add_tokenizer(command: argparse.ArgumentParser) -> None:
    command.add_argument("--tokenizer", metavar="NAME", help="its tokenizer, if that is stored elsewhere")


def _add_data(command: argparse.ArgumentParser) -> None:
    data = command.add_argument_group("data, held out from training")
    source = data.add_mutually_exclusive_group()
    source.add_argument("--task", choices=TASK_NAMES, help="a task of this package, with its template and words")
    source.add_argument("--data", metavar="DATA", help="a jsonl, json, csv or tsv file, or a data set of the Hub")
    data.add_argument("--config", metavar="NAME", help="configuration of a data set of the Hub")
    data.add_argument("--split", default="test", help="split of a data set (default: %(default)s)")
    data.add_argument("--text-column", metavar="NAME", help="default: 'sentence', else 'text'")
    data.add_argument("--label-column", metavar="NAME", default="label", help="0, 1, ... (default: %(default)s)")
    data.add_argument("--template", help=_TEMPLATE_HELP)
    data.add_argument("--chat", choices=("system", "user"), help="the prompt's turn, in the tokenizer's chat template")
    data.add_argument("--label-words", nargs="+", metavar="WORD", help="the word for label 0, 1, ...")
    data.add_argument(
        "--label-names",
        nargs="+",
        metavar="NAME",
        help="the data's own labels, in the words' order",
    )
    data.add_argument("--rows", type=_positive, default=200, metavar="N", help="most rows (default: %(default)s)")
    data.add_argument(
        "--calibration",
        choices=CALIBRATIONS,
        default="none",
        help="take the label words' prior away, estimated on training rows, and tell what it gains (default: none)",
    )
    data.add_argument(
        "--calibration-data",
        metavar="DATA",
        help="the training rows for it, a file; default: the train split of --task or of a data set of the Hub",
    )


def _add_evaluate(command: argparse.ArgumentParser, or_text: bool = False) -> None:
    _add_adapter(command, or_text)
    _add_models(command)
    _add_data(command)
    more = command.add_argument_group("more measures")
    more.add_argument(
        "--judge",
        default="auto",
        metavar="NAME",
        help="whose readability score: 'smollm2', 'embedded' or 'task', the base model (default: the first there is)",
    )
    more.add_argument(
        "--task-description",
        metavar="TEXT",
        help="what the prompt is for, in a sentence: does its text name that? Needs the sentence encoder",
    )
    more.add_argument("--perplexity-model", metavar="MODEL", help="another causal LM that reads the text as well")
    more.add_argument(
        "--wayward",
        nargs="?",
        const=True,
        default=False,
        metavar="TEXT",
        help="also train a prompt towards an unrelated text, to see what nearest tokens can hide; slow",
    )


def _add_pages(command: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    output = command.add_argument_group("output besides the terminal")
    output.add_argument("--html", metavar="FILE", help="one page that needs nothing else")
    output.add_argument("--markdown", metavar="FILE", help="for a README")
    output.add_argument("--json", metavar="FILE", help="everything, for programs")
    return output


def _add_read(command: argparse.ArgumentParser) -> None:
    _add_evaluate(command, or_text=True)
    _add_pages(command).add_argument(
        "--attach", action="store_true", help="store the report beside the adapter (a folder), for its model card"
    )


def _add_compare(command: argparse.ArgumentParser) -> None:
    command.add_argument("prompts", metavar="PROMPT", nargs="+", help="an adapter's folder or hub name, or a text")
    command.add_argument(
        "--base-model", metavar="NAME", help="hub name, folder or 'embedded'; default: the first adapter's"
    )
    _add_tokenizer(command)
    _add_data(command)
    _add_pages(command)


def _add_explain(command: argparse.ArgumentParser) -> None:
    _add_adapter(command)
    _add_models(command)
    _add_data(command)
    search = command.add_argument_group("the search for a text")
    search.add_argument(
        "--budget",
        type=_positive,
        default=3000,
        metavar="N",
        help="pairs of text and row that are run, roughly; more finds more (default: %(default)s)",
    )
    search.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default: %(default)s)")
    search.add_argument("--longest", type=_positive, metavar="N", help="most tokens of a text (default: the prompt's)")
    _add_pages(command)


def _add_export(command: argparse.ArgumentParser) -> None:
    _add_adapter(command)
    command.add_argument("--to", required=True, choices=("text", "chat", "ollama", "portable"), help="what to make")
    command.add_argument("--output", metavar="PATH", help="file, or folder for 'portable'; default: standard output")
    command.add_argument(
        "--role", choices=ROLES, default="user", help="of the prompt, for 'chat' and 'ollama' (default: %(default)s)"
    )
    command.add_argument("--template", help="of the input, for those two; default: that of an attached report")
    command.add_argument("--gguf", default=GGUF, help="weights that a Modelfile names (default: %(default)s)")
    _add_models(command)


def _add_push(command: argparse.ArgumentParser) -> None:
    _add_adapter(command)
    command.add_argument("repo", metavar="REPO", help="'user/name' on the Hub; made where it is missing")
    command.add_argument("--private", action="store_true", default=None, help="if it is made, make it private")
    command.add_argument("--revision", metavar="BRANCH", help="default: the main branch")
    command.add_argument("--message", metavar="WORDS", help="of the commit")
    _add_tokenizer(command)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number >= 1")
    return int(text)


COMMANDS = (
    Command("read", "say what a prompt says and whether to believe it", _READ, _add_read),
    Command("evaluate", "the measures as JSON", _EVALUATE, _add_evaluate),
    Command("compare", "several prompts on the same rows", _COMPARE, _add_compare),
    Command("explain", "a text that behaves like a soft prompt", _EXPLAIN, _add_explain),
    Command("export", "text, chat messages, an Ollama Modelfile, or an adapter for plain PEFT", _EXPORT, _add_export),
    Command("push", "push to the Hub with a model card", _PUSH, _add_push),
)
