"""How the readability score was fitted on human ratings, and what it and the flags can do; README.md has the table."""
