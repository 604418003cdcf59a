"""A training step of our prompt against stock prompt tuning: time, memory, agreement."""
