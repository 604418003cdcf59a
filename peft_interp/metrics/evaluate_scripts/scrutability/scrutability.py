"""`evaluate.load` of this folder gives the scrutability measurement."""

from peft_interp.metrics.modules import Scrutability  # noqa: F401
