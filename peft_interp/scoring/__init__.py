"""What prompts are worth on data, exactly and fast: task rewards, readability rewards, and a record of every score."""
