"""A text for a prompt of any kind: candidates from several sources, judged by what they do, and where they part."""
