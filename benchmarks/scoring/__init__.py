"""Scoring many prompts against the loop that RLPrompt's published procedure describes: time, memory, agreement."""
