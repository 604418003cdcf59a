"""One report about any prompt: what it says, what it does, and whether either may be believed."""

from peft_interp.report.build import report_prompt
from peft_interp.report.record import PromptReport, Rival
from peft_interp.report.verdicts import QUESTIONS, Verdict

__all__ = ["QUESTIONS", "PromptReport", "Rival", "Verdict", "report_prompt"]
