"""One report about any prompt: what it says, what it does, and whether either may be believed."""

from peft_interp.report.build import report_prompt, report_text
from peft_interp.report.compare import PromptComparison, compare_prompts
from peft_interp.report.prompt_report import PromptReport
from peft_interp.report.record import Rival
from peft_interp.report.verdicts import QUESTIONS, Verdict

__all__ = [
    "QUESTIONS",
    "PromptComparison",
    "PromptReport",
    "Rival",
    "Verdict",
    "compare_prompts",
    "report_prompt",
    "report_text",
]
