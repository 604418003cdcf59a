"""The study: can a prompt be readable and good? Run as `python -m studies.tradeoff`; README.md has the rest."""
