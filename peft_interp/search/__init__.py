"""Search for fluent prompts: proposals that a language model finds likely, kept along the front of task and fluency."""
