"""The command line: `peft-interp read | evaluate | compare | explain | export | push`."""

from __future__ import annotations

import os
import sys
import warnings
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from peft_interp.cli.arguments import parse
from peft_interp.report.texts import plain

USERS_MISTAKE, INTERRUPTED = 1, 130  # exit codes; argparse's own, for words it does not understand, is 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments; None: those of the process.

    Returns:
        0, or 1 for a mistake that the user can mend, which is told in one line on standard error. Arguments that are
        not understood end the process with 2.
    """
    arguments = parse(argv)
    try:
        return _run(arguments.command, arguments)
    except BrokenPipeError:  # the reader of our output has closed it; what is still buffered goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if arguments.debug or not _is_users(error):
            raise
        unreachable = _is_of_http(error) and not isinstance(error, OSError)
        print_error(f"the Hub cannot be reached: {error}" if unreachable else error)
        return USERS_MISTAKE
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _run(command: str, arguments: Namespace) -> int:
    """Import what the commands need, which takes seconds, and run one."""
    from peft_interp.cli import commands
    from peft_interp.registration import register

    register()
    with _quiet(), _notes():
        getattr(commands, command)(arguments)
    return 0


def _is_users(error: Exception) -> bool:
    """Whether the error tells of something that the user can mend."""
    return isinstance(error, (ValueError, OSError, ImportError, FloatingPointError)) or _is_of_http(error)


def _is_of_http(error: Exception) -> bool:
    from huggingface_hub.errors import HTTPError

    return isinstance(error, HTTPError)


def print_error(error: Exception | str) -> None:
    """In one line, whatever the library that raised it wrote."""
    sys.stderr.write(f"peft-interp: error: {plain(error) or type(error).__name__}\n")


@contextmanager
def _notes() -> Iterator[None]:
    """Warnings that are meant for the user stand, a line each, on standard error when the command is done."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            yield
        finally:
            for note in caught:
                sys.stderr.write(f"peft-interp: note: {plain(note.message)}\n")


@contextmanager
def _quiet() -> Iterator[None]:
    """No chatter and no bars of libraries; whoever calls `main` from Python finds both as they were."""
    import datasets
    from transformers import logging

    levels = [(part, part.get_verbosity()) for part in (logging, datasets.logging)]
    bars = logging.is_progress_bar_enabled(), not datasets.are_progress_bars_disabled()
    try:
        for part, _ in levels:
            part.set_verbosity_error()
        logging.disable_progress_bar()
        datasets.disable_progress_bars()
        yield
    finally:
        for part, level in levels:
            part.set_verbosity(level)
        if bars[0]:
            logging.enable_progress_bar()
        if bars[1]:
            datasets.enable_progress_bars()
