"""`evaluate.load` of this folder gives the faithfulness measurement."""

from peft_interp.metrics.modules import Faithfulness  # noqa: F401
