"""Text and tokens: tokenization, token filters, label words in a template, rows of data."""
