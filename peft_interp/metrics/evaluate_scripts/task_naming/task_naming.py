"""`evaluate.load` of this folder gives the task-naming measurement."""

from peft_interp.metrics.modules import TaskNaming  # noqa: F401
