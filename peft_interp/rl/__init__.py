"""Prompt search by reinforcement learning: soft Q-learning with rewards for the task and for readability."""
