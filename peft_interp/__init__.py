"""Prompts that are trained like any PEFT adapter and that a person can read, check and paste.

Importing this package makes PEFT know `InterpPromptConfig`; everything else is PEFT and Trainer as usual. A name below
is loaded when it is first used (PEP 562), so that the import costs next to nothing beyond PEFT's own.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from peft_interp._version import __version__ as __version__

if TYPE_CHECKING:
    from peft_interp import embedded as embedded
    from peft_interp import metrics as metrics
    from peft_interp.answers.rewards import exact_match_reward as exact_match_reward
    from peft_interp.answers.rewards import json_reward as json_reward
    from peft_interp.answers.rewards import on_answers as on_answers
    from peft_interp.answers.rewards import rouge_reward as rouge_reward
    from peft_interp.callbacks import PromptCallback as PromptCallback
    from peft_interp.classification import classify as classify
    from peft_interp.explain.activations import compare_activations as compare_activations
    from peft_interp.explain.explain import explain_prompt as explain_prompt
    from peft_interp.metrics.faithfulness import measure_faithfulness as measure_faithfulness
    from peft_interp.metrics.label_prior import measure_label_prior as measure_label_prior
    from peft_interp.metrics.label_scores import calibrate as calibrate
    from peft_interp.metrics.likelihood import text_nll as text_nll
    from peft_interp.metrics.reading import read_prompt as read_prompt
    from peft_interp.metrics.scrutability import measure_scrutability as measure_scrutability
    from peft_interp.metrics.task_naming import measure_task_naming as measure_task_naming
    from peft_interp.registration import continue_training as continue_training
    from peft_interp.registration import register as register
    from peft_interp.report import PromptComparison as PromptComparison
    from peft_interp.report import PromptExplanation as PromptExplanation
    from peft_interp.report import PromptReport as PromptReport
    from peft_interp.report import compare_prompts as compare_prompts
    from peft_interp.report import report_prompt as report_prompt
    from peft_interp.report import report_text as report_text
    from peft_interp.rl.config import RLPromptConfig as RLPromptConfig
    from peft_interp.rl.trainer import RLPromptTrainer as RLPromptTrainer
    from peft_interp.scoring.answer_comparison import compare_answers as compare_answers
    from peft_interp.scoring.reward_functions import readability_reward as readability_reward
    from peft_interp.scoring.reward_functions import task_naming_reward as task_naming_reward
    from peft_interp.search.config import PromptSearchConfig as PromptSearchConfig
    from peft_interp.search.trainer import PromptSearchTrainer as PromptSearchTrainer
    from peft_interp.text.data_files import load_rows as load_rows
    from peft_interp.text.template import mark_prompt as mark_prompt
    from peft_interp.text.verbalizer import Verbalizer as Verbalizer
    from peft_interp.tuner.calibrated_loss import calibrated_loss as calibrated_loss
    from peft_interp.tuner.config import InterpPromptConfig as InterpPromptConfig

# The same names, by the module that has them; a test holds the two lists together.
_HOMES = {
    "InterpPromptConfig": "tuner.config",
    "PromptCallback": "callbacks",
    "PromptComparison": "report",
    "PromptExplanation": "report",
    "PromptReport": "report",
    "PromptSearchConfig": "search.config",
    "PromptSearchTrainer": "search.trainer",
    "RLPromptConfig": "rl.config",
    "RLPromptTrainer": "rl.trainer",
    "Verbalizer": "text.verbalizer",
    "exact_match_reward": "answers.rewards",
    "json_reward": "answers.rewards",
    "load_rows": "text.data_files",
    "calibrate": "metrics.label_scores",
    "calibrated_loss": "tuner.calibrated_loss",
    "classify": "classification",
    "compare_activations": "explain.activations",
    "compare_answers": "scoring.answer_comparison",
    "compare_prompts": "report",
    "continue_training": "registration",
    "explain_prompt": "explain.explain",
    "mark_prompt": "text.template",
    "measure_faithfulness": "metrics.faithfulness",
    "measure_label_prior": "metrics.label_prior",
    "measure_scrutability": "metrics.scrutability",
    "measure_task_naming": "metrics.task_naming",
    "on_answers": "answers.rewards",
    "read_prompt": "metrics.reading",
    "readability_reward": "scoring.reward_functions",
    "register": "registration",
    "report_prompt": "report",
    "report_text": "report",
    "rouge_reward": "answers.rewards",
    "task_naming_reward": "scoring.reward_functions",
    "text_nll": "metrics.likelihood",
}
_MODULES = ("embedded", "metrics")  # parts with an API of their own, which `import peft_interp` alone makes reachable
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})


def _is_the_command() -> bool:
    """Whether the process is `peft-interp` or `python -m peft_interp`.

    Those answer `--help` without PEFT, which takes seconds to import, and register as soon as a command runs.
    """
    program = os.path.basename((getattr(sys, "argv", None) or [""])[0])
    if program == "-m":  # what Python has there until it has found the module
        after_m = sys.orig_argv[sys.orig_argv.index("-m") + 1 :] if "-m" in sys.orig_argv else []
        return after_m[:1] == [__name__]
    return program in ("peft-interp", "peft-interp.exe", "peft-interp-script.py")


if not _is_the_command():
    import_module(f"{__name__}.registration").register()
