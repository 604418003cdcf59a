"""One report about any prompt: what it says, what it does, and whether either may be believed.

A name is loaded when it is first used, so that the command line takes its words from `report.texts` alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft_interp.report.build import report_prompt as report_prompt
    from peft_interp.report.build import report_text as report_text
    from peft_interp.report.compare import PromptComparison as PromptComparison
    from peft_interp.report.compare import compare_prompts as compare_prompts
    from peft_interp.report.explanation import PromptExplanation as PromptExplanation
    from peft_interp.report.prompt_report import PromptReport as PromptReport
    from peft_interp.report.record import Rival as Rival
    from peft_interp.report.verdicts import QUESTIONS as QUESTIONS
    from peft_interp.report.verdicts import Verdict as Verdict

_HOMES = {
    "QUESTIONS": "verdicts",
    "PromptComparison": "compare",
    "PromptExplanation": "explanation",
    "PromptReport": "prompt_report",
    "Rival": "record",
    "Verdict": "verdicts",
    "compare_prompts": "compare",
    "report_prompt": "build",
    "report_text": "build",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
