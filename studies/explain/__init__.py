"""Whether `explain_prompt` finds what was planted, and what it says of trained soft prompts."""
