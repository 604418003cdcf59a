"""Prompts that are trained like any PEFT adapter and that a person can read, check and paste.

Importing this package makes PEFT know `InterpPromptConfig`; everything else is PEFT and Trainer as usual.
"""

from peft_interp.callbacks import PromptCallback
from peft_interp.classification import classify
from peft_interp.metrics.faithfulness import measure_faithfulness
from peft_interp.metrics.likelihood import text_nll
from peft_interp.metrics.reading import read_prompt
from peft_interp.metrics.scrutability import measure_scrutability
from peft_interp.registration import continue_training, register
from peft_interp.report import PromptReport, report_prompt
from peft_interp.rl.config import RLPromptConfig
from peft_interp.rl.trainer import RLPromptTrainer
from peft_interp.search.config import PromptSearchConfig
from peft_interp.search.trainer import PromptSearchTrainer
from peft_interp.text.data_files import read_rows
from peft_interp.text.verbalizer import Verbalizer
from peft_interp.tuner.config import InterpPromptConfig

__version__ = "0.1.0"
__all__ = [
    "InterpPromptConfig",
    "PromptCallback",
    "PromptReport",
    "PromptSearchConfig",
    "PromptSearchTrainer",
    "RLPromptConfig",
    "RLPromptTrainer",
    "Verbalizer",
    "classify",
    "continue_training",
    "measure_faithfulness",
    "measure_scrutability",
    "read_prompt",
    "read_rows",
    "register",
    "report_prompt",
    "text_nll",
]

register()
