"""Answers per second, many prompts and rows at once, against `generate`."""
