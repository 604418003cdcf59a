"""Running a model to measure it: evaluation mode, batches that fit memory, the longest input."""
