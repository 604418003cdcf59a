"""Prompts that are trained like any PEFT adapter and that a person can read, check and paste.

Importing this package makes PEFT know `InterpPromptConfig`; everything else is PEFT and Trainer as usual.
"""

from peft_interp.callbacks import PromptCallback
from peft_interp.config import InterpPromptConfig
from peft_interp.loading import continue_training
from peft_interp.perplexity import text_nll
from peft_interp.registration import register
from peft_interp.verbalizer import Verbalizer

__version__ = "0.1.0"
__all__ = ["InterpPromptConfig", "PromptCallback", "Verbalizer", "continue_training", "register", "text_nll"]

register()
