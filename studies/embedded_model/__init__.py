"""How the embedded language model was made and measured; README.md has the recipe and all figures."""
