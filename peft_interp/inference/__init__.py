"""Inference: evaluation mode, one thread at a time, batch sizes, maximum length, the head where it is needed."""
